package world

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/soak/check"
)

// A client uses the service: at any time it is one member of one hub, over time
// several. It records what it receives.
//
// One goroutine at a time makes it join, leave and close; another one, the
// reader, receives all the time.
type client struct {
	world *World
	name  string
	user  string          // its name, if it moves: others have no user
	ctx   context.Context // of the run

	hub    int
	member *fanout.Member
	ended  chan struct{} // closed when the member's reader has ended

	mu    sync.Mutex  // guards all below
	rooms []*presence // by room
	turn  turn
	known map[string]*presence
}

// A presence is the record of a client in one room.
type presence struct {
	room  *Room
	stays []*check.Stay
	in    *check.Stay // the current stay, if it is in the room
	last  fanout.Position
	heard []uint32      // by publisher: the number after the latest received one
	here  people        // of a room with presence
	wrong []*check.List // changes that did not fit
}

// A turn is the time from the end of one Receive to the next one.
type turn struct {
	ctx  context.Context
	end  context.CancelFunc
	over chan struct{}
}

func newTurn(ctx context.Context) turn {
	t := turn{over: make(chan struct{})}
	t.ctx, t.end = context.WithCancel(ctx)
	return t
}

func (w *World) newClient(ctx context.Context, name, user string, hub int) (*client, error) {
	c := &client{world: w, name: name, user: user, ctx: ctx, known: make(map[string]*presence)}
	for _, r := range w.Rooms {
		p := &presence{room: r, heard: make([]uint32, len(r.publishers))}
		c.rooms = append(c.rooms, p)
		c.known[r.Name] = p
	}
	return c, c.connect(hub)
}

// connect makes the client a member of a hub, without rooms.
func (c *client) connect(hub int) error {
	m, err := c.world.Hubs[hub].Connect(&fanout.MemberOptions{User: c.user})
	if err != nil {
		return fmt.Errorf("%s cannot connect: %w", c.name, err)
	}
	c.hub, c.member, c.ended = hub, m, make(chan struct{})
	c.mu.Lock()
	c.turn = newTurn(c.ctx)
	c.mu.Unlock()
	go c.read(m, c.ended) // close waits for it
	return nil
}

// close ends the member, and returns when its reader has ended.
func (c *client) close() {
	now := c.world.now()
	c.mu.Lock()
	for _, p := range c.rooms {
		if p.in != nil {
			p.in.Leaving = now
		}
	}
	c.mu.Unlock()
	c.member.Close()
	now = c.world.now()
	c.mu.Lock()
	for _, p := range c.rooms {
		if p.in != nil {
			p.in.Left = now
		}
	}
	c.mu.Unlock()
	<-c.ended
	c.mu.Lock()
	for _, p := range c.rooms {
		p.in = nil
	}
	c.turn.end()
	c.mu.Unlock()
}

// join makes the client join a room.
func (c *client) join(ctx context.Context, room int) error {
	r := c.world.Hubs[c.hub].Room(c.world.Rooms[room].Name)
	return c.enter(ctx, room, &check.Stay{}, func(ctx context.Context) error { return r.Join(ctx, c.member) })
}

// resume makes the client resume a room that it has been in.
func (c *client) resume(ctx context.Context, room int, since fanout.Position) error {
	r := c.world.Hubs[c.hub].Room(c.world.Rooms[room].Name)
	return c.enter(ctx, room, &check.Stay{Resumed: true, Since: since}, func(ctx context.Context) error { return r.Resume(ctx, c.member, since) })
}

func (c *client) enter(ctx context.Context, room int, s *check.Stay, enter func(context.Context) error) error {
	ctx, cancel := within(ctx)
	defer cancel()
	p := c.rooms[room]
	s.Client, s.Joining = c.name, c.world.now()
	c.mu.Lock()
	p.in, p.stays, p.here = s, append(p.stays, s), nil
	c.mu.Unlock()
	err := enter(ctx)
	c.mu.Lock()
	s.Joined = c.world.now()
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s on hub %d, from %v to %v: %w", c.name, c.hub, s.Joining, s.Joined, err)
	}
	return nil
}

// leave makes the client leave a room. It returns when the reader has begun
// another Receive: what that one returns arrived after the client had left.
func (c *client) leave(ctx context.Context, room int) error {
	p := c.rooms[room]
	c.mu.Lock()
	p.in.Leaving = c.world.now()
	c.mu.Unlock()
	err := c.world.Hubs[c.hub].Room(p.room.Name).Leave(ctx, c.member)
	c.mu.Lock()
	p.in.Left = c.world.now()
	over := c.turn.over
	c.turn.end()
	c.mu.Unlock()
	select {
	case <-over:
	case <-c.ended:
	}
	c.mu.Lock()
	p.in = nil
	c.mu.Unlock()
	return err
}

// batch is how many messages a reader takes at a time.
const batch = 32

// read receives until the member or the run ends.
func (c *client) read(m *fanout.Member, ended chan struct{}) {
	defer close(ended)
	buf := make([]fanout.Message, batch)
	for {
		c.mu.Lock()
		turn := c.turn
		c.mu.Unlock()
		asked := c.world.now()
		n, err := m.ReceiveBatch(turn.ctx, buf)
		gap := new(fanout.GapError)
		isGap := errors.As(err, &gap)
		if !isGap {
			gap = nil
		}
		c.write(asked, buf[:n], gap)
		switch {
		case err == nil, isGap:
		case errors.Is(err, fanout.ErrClosed), c.ctx.Err() != nil:
			return
		case turn.ctx.Err() != nil:
			c.mu.Lock()
			c.turn = newTurn(c.ctx)
			c.mu.Unlock()
			close(turn.over)
		default:
			c.world.fail(fmt.Errorf("%s receives: %w", c.name, err))
			return
		}
	}
}

// write writes down what was received.
func (c *client) write(asked check.Time, messages []fanout.Message, gap *fanout.GapError) {
	now := c.world.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range messages {
		m := &messages[i]
		p := c.known[m.Room]
		if change, ok := m.Presence(); ok && p != nil {
			if wrong := p.here.apply(&change); wrong != nil {
				p.wrong = append(p.wrong, &check.List{Client: c.name, At: now, Wrong: wrong})
			}
			continue
		}
		id, ok := parse(m.Data)
		if p == nil || !ok || int(id.Publisher) >= len(p.heard) {
			c.world.fail(fmt.Errorf("%s received %q of room %q, which was never published", c.name, m.Data[:min(len(m.Data), 64)], m.Room))
			continue
		}
		p.last = m.Position
		p.heard[id.Publisher] = max(p.heard[id.Publisher], id.Number+1)
		s := p.stay()
		s.Events = append(s.Events, check.Event{Asked: asked, At: now, Message: id, Position: m.Position})
	}
	if gap == nil || gap.Room == "" { // without a room: direct messages and those to everyone, which soak does not send
		return
	}
	if p := c.known[gap.Room]; p != nil {
		s := p.stay()
		s.Events = append(s.Events, check.Event{Asked: asked, At: now, Gap: true, Missed: gap.Missed, Unknown: gap.Unknown})
	}
}

// stay returns the stay in which something was received: the current one, or
// else the last one, for which it was too late.
func (p *presence) stay() *check.Stay {
	if p.in != nil {
		return p.in
	}
	if len(p.stays) == 0 {
		p.stays = append(p.stays, &check.Stay{Client: "nobody", Left: 1})
	}
	return p.stays[len(p.stays)-1]
}

// lacks returns the first steady publisher whose messages the client has not
// received up to a number, in the rooms that it is in.
func (c *client) lacks(upTo func(*publisher) uint32) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.rooms {
		if p.in == nil {
			continue
		}
		for i, pub := range p.room.publishers[:Hubs] {
			if want := upTo(pub); p.heard[i] < want {
				return fmt.Sprintf("%s on hub %d has received messages of publisher %d of room %s up to %d, and should up to %d",
					c.name, c.hub, i, p.room.Name, p.heard[i], want)
			}
		}
	}
	return ""
}
