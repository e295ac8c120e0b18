package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/soak/check"
)

// A room has, on each hub, a publisher that publishes all the time, and one
// that publishes only when the suite wants a message.
type room struct {
	index      int
	name       string
	keeps      int
	publishers []*publisher // hubs steady ones, then hubs others

	mu    sync.Mutex // guards all below
	reads []*check.Read
}

// Every other room has a history. Most keep more than is published in a run.
// Some keep so little that a client that is away for a while loses messages.
const (
	keepsAll  = 100_000
	keepsFew  = 50
	fewBefore = "few"
	allBefore = "kept"
)

func (w *world) newRoom(i int) *room {
	r := &room{index: i, name: fmt.Sprint("plain", i)}
	switch {
	case w.plain:
	case i%8 == 1:
		r.name, r.keeps = fmt.Sprint(fewBefore, i), keepsFew
	case i%2 == 1:
		r.name, r.keeps = fmt.Sprint(allBefore, i), keepsAll
	}
	for id := range 2 * hubs {
		r.publishers = append(r.publishers, &publisher{world: w, room: r, id: id})
	}
	return r
}

// roomOptions is Options.Room.
func roomOptions(room string) fanout.RoomOptions {
	switch {
	case strings.HasPrefix(room, fewBefore):
		return fanout.RoomOptions{Retain: fanout.Retention{Messages: keepsFew, Age: time.Hour}}
	case strings.HasPrefix(room, allBefore):
		return fanout.RoomOptions{Retain: fanout.Retention{Messages: keepsAll, Age: time.Hour}}
	}
	return fanout.RoomOptions{}
}

// slot returns the slot of the room's channel and history.
func (r *room) slot() int { return redistest.Slot("{" + r.name + "}") }

func (r *room) record(clients []*client) *check.Room {
	c := &check.Room{Name: r.name, Keeps: r.keeps, Reads: r.reads}
	for _, p := range r.publishers {
		c.Published = append(c.Published, p.published)
	}
	for _, cl := range clients {
		c.Stays = append(c.Stays, cl.rooms[r.index].stays...)
	}
	return c
}

// A publisher publishes numbers in a room, one after the other.
type publisher struct {
	world *world
	room  *room
	id    int // in the room

	next atomic.Uint32 // the number of the next message

	mu        sync.Mutex // held while it publishes; guards published
	published []check.Publication
}

// run publishes until it is told to stop, and then once more, with success.
func (p *publisher) run(ctx context.Context) {
	tick := time.NewTicker(p.world.pace * hubs)
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
	err := publish(ctx, p.world.hubs[p.id%hubs].Room(p.room.name), text, n%2 == 1)
	o := check.Unclear
	switch {
	case err == nil:
		o = check.Accepted
	case errors.Is(err, fanout.ErrUnsent):
		o = check.Unsent
	}
	if err != nil && ctx.Err() == nil {
		p.world.log.say("%v: publisher %d in room %s could not say %d: %v", begin, p.id, p.room.name, n, err)
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
