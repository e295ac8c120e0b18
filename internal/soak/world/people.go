package world

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/soak/check"
)

// People are those in a room with presence, as a client is told.
type people map[string]bool // nil: the list has not come

// apply applies what the client has received. It returns what does not fit what
// was before.
func (p *people) apply(c *fanout.PresenceChange) (wrong []string) {
	switch {
	case c.Reset:
		*p = make(people)
	case *p == nil:
		return []string{"got a change before the list"}
	}
	for _, person := range c.Joined {
		name := person.User + person.Member
		if (*p)[name] {
			wrong = append(wrong, fmt.Sprintf("was told that %s came, who was here", name))
		}
		(*p)[name] = true
	}
	for _, person := range c.Left {
		name := person.User + person.Member
		if !(*p)[name] {
			wrong = append(wrong, fmt.Sprintf("was told that %s left, who was not here", name))
		}
		delete(*p, name)
	}
	return wrong
}

// compareTime is how long it may take, once everything works and nobody moves,
// until all clients know who is there.
const compareTime = 15 * time.Second

// compare has the movers stand still until all clients know who is in the rooms
// with presence, or have had the time to. What they know then is recorded.
func (w *World) compare(ctx context.Context) {
	began := w.now()
	w.still.Lock()
	defer w.still.Unlock()
	run := ctx
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	var watched []*Room
	var comparing sync.WaitGroup
	for _, r := range w.Rooms {
		if r.watched {
			watched = append(watched, r)
			r.lists = append(r.lists, nil)
			comparing.Go(func() { w.compareIn(ctx, r) })
		}
	}
	comparing.Wait()
	for _, r := range watched {
		if last := len(r.lists) - 1; r.lists[last] == nil && run.Err() == nil {
			r.lists[last] = []*check.List{{Client: "Members", At: w.now(), Wrong: []string{fmt.Sprintf("did not answer within %v", compareTime)}}}
		}
	}
	w.config.Log.Say("%v: the lists of people were compared, which took %v", w.now(), w.now()-began)
}

// compareIn records what the clients in a room know, again and again, until all
// of them are right or ctx ends.
func (w *World) compareIn(ctx context.Context, r *Room) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		lists, right := w.listsOf(ctx, r)
		if ctx.Err() == nil { // otherwise those of before are the last
			r.lists[len(r.lists)-1] = lists
		}
		if right {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// listsOf returns what the clients in a room know of who is there, and whether
// all of them are right.
func (w *World) listsOf(ctx context.Context, r *Room) (lists []*check.List, right bool) {
	var members [Hubs][]string
	for i, h := range w.Hubs {
		members[i] = here(ctx, h, r.Name)
	}
	in := w.in(r)
	right = true
	for _, c := range w.clients() {
		c.mu.Lock()
		if p := c.rooms[r.index]; p.in != nil {
			l := &check.List{Client: c.name, At: w.now(), Members: members[c.hub], In: in, People: slices.Sorted(maps.Keys(p.here))}
			lists = append(lists, l)
			right = right && slices.Equal(l.People, l.Members) && slices.Equal(l.Members, l.In)
		}
		c.mu.Unlock()
	}
	return lists, right
}

// in returns who is in a room, each person once. Nobody moves meanwhile.
func (w *World) in(r *Room) []string {
	names := make(map[string]bool)
	for _, c := range w.clients() {
		c.mu.Lock()
		switch {
		case c.rooms[r.index].in == nil:
		case c.user != "":
			names[c.user] = true
		default:
			names[c.member.ID()] = true
		}
		c.mu.Unlock()
	}
	return slices.Sorted(maps.Keys(names))
}

// here returns who is in a room, as Members says, each person once.
func here(ctx context.Context, h *fanout.Hub, room string) []string {
	names := make(map[string]bool)
	for m, err := range h.In(room).Members(ctx) {
		switch {
		case err != nil:
			names[err.Error()] = true
		case m.User != "":
			names[m.User] = true
		default:
			names[m.ID] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
