// Package performer carries out the questions of hubs on one hub: it finds the
// members that a question selects, and counts, lists, asks or commands them.
//
//	Perform ─▶ choose ─┬─ rooms ────────────▶ Room.Walk ──┐
//	                   └─ users, members, ──▶ Env.Member ─┤ each
//	                      everyone: numbers               ▼
//	                             left out: Except, ExceptRooms, an earlier room
//	                                                      │
//	      OpMembers ─▶ Taker.Put ◀────────────────────────┤
//	      OpJoin, OpLeave, OpClose ─▶ Join, Leave, Finish ┤
//	      OpAsk ─▶ Send, then Poll.Collect ───────────────┤
//	      OpCount ────────────────────────────────────────┘
//
// A Performer remembers nothing, and has no lock. It runs on the goroutine of
// its caller: package questions has a goroutine for each question.
package performer

import (
	"cmp"
	"context"
	"slices"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/wire"
)

// Env is the hub. Its functions may be called from any goroutine; no lock is
// held.
type Env struct {
	ID    string     // of the hub
	Names wire.Names // of channels

	// Room returns the room with a channel; nil if it is not in use here.
	Room func(channel string) Room
	// Member returns the member with a number; nil if there is none.
	Member func(number uint64) Member
	// Numbers returns the numbers of all members, and NumbersOf those of the
	// members of a user.
	Numbers   func() []uint64
	NumbersOf func(user string) []uint64
	// Describe returns what the hub answers to OpHubs. Its Count is the number
	// of members.
	Describe func() control.Entry
	// Poll begins a question to members, as [questions.Switchboard.Poll] does.
	Poll func(data []byte) *questions.Poll
}

// A Member is a member of this hub. Its methods may be called concurrently.
type Member interface {
	// Number returns its number.
	Number() uint64
	// Entry describes it.
	Entry() control.Entry
	// Ended reports whether it has ended: then no question selects it.
	Ended() bool
	// IsIn reports whether it is in the room with a channel.
	IsIn(channel string) bool
	// Send gives it a direct message of a hub. It reports false if the member
	// may not get it.
	Send(from uint64, data []byte) bool
	// Join brings it into a room, and waits for that. It returns nil also if
	// the member ends, leaves, or is not admitted.
	Join(ctx context.Context, room string) error
	// Leave takes it out of a room.
	Leave(room string)
	// Finish closes it with a reason. If the question came in a room, the member
	// first receives the messages of that room from before the place.
	Finish(reason string, place any)
}

// A Room is a room of this hub. Its methods may be called concurrently.
type Room interface {
	// Channel returns the name of its channel.
	Channel() string
	// Count returns the number of its members.
	Count() int
	// Walk calls f for its members, without locks, until f returns an error or
	// ctx ends. Members that come or go meanwhile may or may not be among them.
	Walk(ctx context.Context, f func(Member) error) error
	// Expel is called before members of the room are taken out of rooms. When
	// it has returned, members that are joining this room ask again whether
	// they are admitted.
	Expel()
}

// A Performer carries out questions. Init makes it. Its methods may be called
// concurrently.
type Performer struct{ env Env }

// Init makes p, which is zero, the performer of a hub.
func (p *Performer) Init(env *Env) { p.env = *env }

// Perform implements Env.Perform of package questions. It waits in Join, for
// the answers of members, and for room in the answer, until ctx ends.
func (p *Performer) Perform(ctx context.Context, from uint64, q *control.Question, place any, t questions.Taker) (count uint64, err error) {
	c := p.choose(q)
	switch q.Op {
	case control.OpCount:
		return c.count(ctx)
	case control.OpMembers:
		return c.each(ctx, func(m Member) error {
			e := m.Entry()
			return t.Put(&e)
		})
	case control.OpHubs:
		e := p.env.Describe()
		return 1, t.Put(&e)
	case control.OpAsk:
		return p.ask(ctx, from, q, c, t)
	case control.OpJoin:
		return c.join(ctx, q.Rooms)
	case control.OpLeave:
		c.expel()
		return c.each(ctx, func(m Member) error {
			for _, room := range q.Rooms {
				m.Leave(room)
			}
			return nil
		})
	case control.OpClose:
		c.expel()
		return c.each(ctx, func(m Member) error {
			m.Finish(string(q.Text), place)
			return nil
		})
	}
	return 0, questions.ErrNotUnderstood
}

// ask asks members a question, and passes on their answers until all have
// answered, ended, or left the rooms through which they were asked.
func (p *Performer) ask(ctx context.Context, from uint64, q *control.Question, c *chosen, t questions.Taker) (count uint64, err error) {
	poll := p.env.Poll(q.Data)
	defer poll.Close()
	var channels []string
	for _, r := range c.rooms {
		channels = append(channels, r.Channel())
	}
	poll.Within(channels)
	count, err = c.each(ctx, func(m Member) error {
		poll.Add(m.Number())
		got := m.Send(from, poll.Data)
		left := len(channels) > 0 && !slices.ContainsFunc(channels, m.IsIn) // before Add
		if !got || left {
			poll.Gone(m.Number())
		}
		return nil
	})
	if err != nil || count == 0 {
		return count, err
	}
	return count, poll.Collect(ctx, count, t)
}

// join brings the members into rooms. If one cannot join, the others still do.
// The first error is returned when all have tried.
func (c *chosen) join(ctx context.Context, rooms []string) (count uint64, err error) {
	var failed error
	count, err = c.each(ctx, func(m Member) error {
		for _, room := range rooms {
			if err := m.Join(ctx, room); err != nil {
				failed = cmp.Or(failed, err)
				break
			}
		}
		return context.Cause(ctx)
	})
	return count, cmp.Or(err, failed)
}

// expel announces that members are about to be taken out of rooms. A member
// whose Join was admitted, but that is not in its room yet, is not found by a
// walk over the room. Selections of users, members and everyone do not need
// this: they do not go by rooms.
func (c *chosen) expel() {
	for _, r := range c.rooms {
		r.Expel()
	}
}
