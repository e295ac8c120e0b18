package world

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/soak/check"
)

// A Room has, on each hub, a publisher that publishes all the time, and one
// that publishes only when the suite wants a message.
type Room struct {
	Name string

	index      int
	keeps      int
	watched    bool         // it has presence
	publishers []*publisher // Hubs steady ones, then hubs others

	mu    sync.Mutex // guards all below
	reads []*check.Read
	lists [][]*check.List // by moment
}

// Every other room has a history, and a quarter of the rooms presence. Most
// keep more than is published in a run. Some keep so little that a client that
// is away for a while loses messages.
const (
	keepsAll  = 100_000
	keepsFew  = 50
	fewBefore = "few"
	allBefore = "kept"
	watched   = " watched"
)

func (w *World) newRoom(i int) *Room {
	r := &Room{Name: fmt.Sprint("plain", i), index: i}
	switch {
	case w.config.Plain:
	case i%8 == 1:
		r.Name, r.keeps = fmt.Sprint(fewBefore, i), keepsFew
	case i%2 == 1:
		r.Name, r.keeps = fmt.Sprint(allBefore, i), keepsAll
	}
	if r.watched = i%4 == 2 || i%8 == 3; r.watched {
		r.Name += watched
	}
	for id := range 2 * Hubs {
		r.publishers = append(r.publishers, &publisher{world: w, room: r, id: id})
	}
	return r
}

// roomOptions is Options.Room.
func roomOptions(room string) (o fanout.RoomOptions) {
	switch {
	case strings.HasPrefix(room, fewBefore):
		o.Retain = fanout.Retention{Messages: keepsFew, Age: time.Hour}
	case strings.HasPrefix(room, allBefore):
		o.Retain = fanout.Retention{Messages: keepsAll, Age: time.Hour}
	}
	if strings.HasSuffix(room, watched) {
		o.Presence, o.Grace = true, 100*time.Millisecond
	}
	return o
}

// Say publishes one more message in the room, from a hub, besides those of its
// steady publisher. Padding makes it longer. The result is recorded.
func (r *Room) Say(ctx context.Context, hub int, padding string) error {
	return r.publishers[Hubs+hub].say(ctx, padding)
}

func (r *Room) record(clients []*client) *check.Room {
	c := &check.Room{Name: r.Name, Keeps: r.keeps, Reads: r.reads, Lists: slices.Concat(r.lists...)}
	for _, p := range r.publishers {
		c.Published = append(c.Published, p.published)
	}
	for _, cl := range clients {
		p := cl.rooms[r.index]
		c.Stays, c.Lists = append(c.Stays, p.stays...), append(c.Lists, p.wrong...)
	}
	return c
}

// A publisher publishes numbers in a room, one after the other.
type publisher struct {
	world *World
	room  *Room
	id    int // in the room

	next atomic.Uint32 // the number of the next message

	mu        sync.Mutex // held while it publishes; guards published
	published []check.Publication
}

// run publishes until it is told to stop, and then once more, with success.
func (p *publisher) run(ctx context.Context) {
	tick := time.NewTicker(p.world.config.Pace * Hubs)
	defer tick.Stop()
	for {
		stopped := false
		select {
		case <-tick.C:
		case <-p.world.stop:
			stopped = true
		case <-ctx.Done():
			return
		}
		err := p.say(ctx, "")
		if stopped && (err == nil || ctx.Err() != nil) {
			return
		}
	}
}

// say publishes the next number and records the result. Padding makes the
// message longer.
func (p *publisher) say(ctx context.Context, padding string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.next.Load()
	text := fmt.Appendf(nil, "%d.%d %s", p.id, n, padding)
	begin := p.world.now()
	p.next.Store(n + 1)
	err := publish(ctx, p.world.Hubs[p.id%Hubs].Room(p.room.Name), text, n%2 == 1)
	o := check.Unclear
	switch {
	case err == nil:
		o = check.Accepted
	case errors.Is(err, fanout.ErrUnsent):
		o = check.Unsent
	}
	if err != nil && ctx.Err() == nil {
		p.world.config.Log.Say("%v: publisher %d in room %s could not say %d: %v", begin, p.id, p.room.Name, n, err)
	}
	p.published = append(p.published, check.Publication{Begin: begin, End: p.world.now(), Outcome: o})
	return err
}

// publish publishes by Publish or PublishAsync, and waits.
func publish(ctx context.Context, room *fanout.Room, text []byte, async bool) error {
	if !async {
		return room.Publish(ctx, text)
	}
	told := make(chan error, 1)
	if err := room.PublishAsync(ctx, text, func(err error) { told <- err }); err != nil {
		return err
	}
	select {
	case err := <-told:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// count returns how many messages it has begun to publish.
func (p *publisher) count() uint32 { return p.next.Load() }

// parse reads a message of say.
func parse(data []byte) (id check.ID, ok bool) {
	_, err := fmt.Sscanf(string(data[:min(len(data), 16)]), "%d.%d", &id.Publisher, &id.Number)
	return id, err == nil
}
