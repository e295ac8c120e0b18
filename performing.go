package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/hellos"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/linked"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/wire"
)

// perform does what a question of a hub asks for on this one. It returns the
// number of members that were selected, and hands the entries of the answer to
// t. The place parameter is the roomPlace where the question came, if it came in a room.
func (h *Hub) perform(ctx context.Context, from uint64, q *control.Question, place any, t questions.Taker) (count uint64, err error) {
	c := h.choose(q)
	if q.Op == control.OpLeave || q.Op == control.OpClose {
		h.expelling(c.rooms)
	}
	switch q.Op {
	case control.OpCount:
		return c.count(ctx)
	case control.OpMembers:
		return c.each(ctx, func(m *Member) error {
			e := m.entry()
			return t.Put(&e)
		})
	case control.OpHubs:
		h.mu.RLock()
		members, rooms := len(h.members), len(h.rooms)-1 // everyone's is no room
		h.mu.RUnlock()
		return 1, t.Put(&control.Entry{
			Number: uint64(rooms), Count: uint64(members), Name: []byte(hellos.Release()),
			Since: uint64(h.since.UnixMilli()),
		})
	case control.OpJoin:
		var failed error // one member that cannot join does not keep others from it
		count, err = c.each(ctx, func(m *Member) error {
			if err := m.join(ctx, q.Rooms); failed == nil {
				failed = err
			}
			return context.Cause(ctx)
		})
		return count, cmp.Or(err, failed)
	case control.OpClose:
		deadline, places := time.Now().Add(closeGrace), make(map[*room]uint64)
		if p, ok := place.(roomPlace); ok {
			places[p.room] = p.mark
		}
		return c.each(ctx, func(m *Member) error {
			m.finish(string(q.Text), deadline, places)
			return nil
		})
	case control.OpAsk:
		return h.poll(ctx, hubID(from), q, c, t)
	case control.OpLeave:
		return c.each(ctx, func(m *Member) error {
			for _, room := range q.Rooms {
				m.leave(h.names.Room(room))
			}
			return nil
		})
	}
	return 0, questions.ErrNotUnderstood
}

// entry describes a member.
func (m *Member) entry() control.Entry {
	return control.Entry{Number: m.num, Since: m.since(), Count: 1, Name: []byte(m.User()), Data: m.Info()}
}

// join brings a member into rooms for another hub. That it ends or leaves
// meanwhile, or is not admitted, is no error.
func (m *Member) join(ctx context.Context, rooms []string) error {
	for _, room := range rooms {
		if err := wire.CheckRoom(room); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidRoom, err)
		}
		err := m.joinRoom(ctx, room)
		if _, refused := errors.AsType[notAdmitted](err); err != nil && !refused && !errors.Is(err, ErrLeft) && m.refusal() == nil {
			return fmt.Errorf("join room %s: %w", quoteName(room), err)
		}
	}
	return nil
}

// joinRoom is Room.Join for another hub, which gets a panic of Options.Room or
// Options.Admit as an error.
func (m *Member) joinRoom(ctx context.Context, room string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("Options.Room or Options.Admit panicked: %v", p)
		}
	}()
	r := m.hub.acquire(room, m.hub.names.Room(room))
	defer m.hub.release(r)
	return r.admit(ctx, m, nil)
}

// Chosen are the members of this hub that a question selects.
type chosen struct {
	hub      *Hub
	everyone bool
	numbers  []uint64 // of members
	rooms    []*room
	except   map[uint64]bool
	without  []string // channels of rooms whose members are left out
}

func (h *Hub) choose(q *control.Question) *chosen {
	c := &chosen{hub: h}
	for _, n := range h.numbersOf(q.Except) {
		if c.except == nil {
			c.except = make(map[uint64]bool)
		}
		c.except[n] = true
	}
	for _, room := range q.ExceptRooms {
		c.without = append(c.without, h.names.Room(room))
	}
	switch q.Scope {
	case control.ScopeEveryone:
		c.everyone = true
	case control.ScopeMembers:
		c.numbers = h.numbersOf(q.Names)
	case control.ScopeUsers:
		for _, user := range q.Names {
			for _, m := range h.membersOf(user) {
				c.numbers = append(c.numbers, m.num)
			}
		}
	default:
		for _, name := range q.Names {
			if r := h.lookup(h.channelOf(q.Scope, name)); r != nil {
				c.rooms = append(c.rooms, r)
			}
		}
	}
	return c
}

// numbersOf returns the numbers of those members in a list that may be here.
func (h *Hub) numbersOf(ids []string) []uint64 {
	if len(ids) == 0 {
		return nil
	}
	m := wire.Message{To: ids}
	return item.MemberNumbers(h.id, m.View().To)
}

// leavesOut reports whether a member is excepted, or is in an earlier one of
// the rooms.
func (c *chosen) leavesOut(m *Member, earlier []*room) bool {
	if m.endError() != nil || c.except[m.num] {
		return true
	}
	for _, channel := range c.without {
		if m.isIn(channel) {
			return true
		}
	}
	for _, r := range earlier {
		if m.isIn(r.channel) {
			return true
		}
	}
	return false
}

// isIn reports whether the member is in the room with a channel.
func (m *Member) isIn(channel string) bool {
	m.mu.Lock()
	ms := m.rooms.Get(channel)
	m.mu.Unlock()
	if ms == nil {
		return false
	}
	ms.room.mu.Lock()
	defer ms.room.mu.Unlock()
	return ms.joined
}

// count returns the number of members.
func (c *chosen) count(ctx context.Context) (uint64, error) {
	plain := c.except == nil && c.without == nil
	switch {
	case plain && c.everyone:
		c.hub.mu.RLock()
		defer c.hub.mu.RUnlock()
		return uint64(len(c.hub.members)), nil
	case plain && len(c.rooms) == 1:
		r := c.rooms[0]
		r.mu.Lock()
		defer r.mu.Unlock()
		return uint64(r.count), nil
	}
	return c.each(ctx, func(*Member) error { return nil })
}

// each calls f for each of the members, without locks, and returns their
// number. Members that come or go meanwhile may or may not be among them.
func (c *chosen) each(ctx context.Context, f func(*Member) error) (count uint64, err error) {
	call := func(m *Member, earlier []*room) error {
		if c.leavesOut(m, earlier) {
			return nil
		}
		count++
		return f(m)
	}
	for i, r := range c.rooms {
		if err := r.walk(ctx, func(m *Member) error { return call(m, c.rooms[:i]) }); err != nil {
			return count, err
		}
	}
	if c.everyone {
		c.numbers = c.hub.memberNumbers()
	}
	for _, n := range c.numbers {
		c.hub.mu.RLock()
		m := c.hub.members[n]
		c.hub.mu.RUnlock()
		if m == nil {
			continue
		}
		if err := call(m, nil); err != nil {
			return count, err
		}
	}
	return count, nil
}

// memberNumbers returns the numbers of all members.
func (h *Hub) memberNumbers() []uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	numbers := make([]uint64, 0, len(h.members))
	for n := range h.members {
		numbers = append(numbers, n)
	}
	return numbers
}

// Links implements linked.Element.
func (ms *membership) Links() *linked.Links[membership] { return &ms.links }

// IsMark implements linked.Element.
func (ms *membership) IsMark() bool { return ms.member == nil }

// walkAtOnce is how many members of a room are looked at while its lock is
// held.
const walkAtOnce = 256

// walk calls f for the members of a room, without locks.
func (r *room) walk(ctx context.Context, f func(*Member) error) error {
	w := r.members.Walk(new(membership))
	defer func() {
		r.mu.Lock()
		w.End()
		r.mu.Unlock()
	}()
	for buf := make([]*membership, 0, walkAtOnce); ; {
		r.mu.Lock()
		buf = w.Next(buf[:0])
		r.mu.Unlock()
		for _, ms := range buf {
			if err := f(ms.member); err != nil {
				return err
			}
		}
		if len(buf) < cap(buf) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}
