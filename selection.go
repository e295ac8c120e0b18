package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/fanoutgo/fanout/internal/wire"
)

// A Selection says whom a message is for. It is a value: each method returns a
// changed copy, and one that is kept may be used again, from any goroutine.
//
// An empty selection, of no rooms or no members, is an error and never
// everybody.
type Selection struct {
	hub         *Hub
	kind        selectionKind
	names       []string // rooms, or member IDs
	except      []string
	exceptRooms []string
	local       bool
	volatile    bool
}

type selectionKind uint8

const (
	inRooms selectionKind = iota + 1
	toMembers
	toEveryone
)

// In selects the members of one or more rooms. A member of several of them gets
// a message once.
func (h *Hub) In(rooms ...string) Selection {
	return Selection{hub: h, kind: inRooms, names: slices.Clone(rooms)}
}

// To selects members by their ID, wherever they are connected. A message goes
// to the hubs that hold them and to no other.
func (h *Hub) To(memberIDs ...string) Selection {
	return Selection{hub: h, kind: toMembers, names: slices.Clone(memberIDs)}
}

// Everyone selects all members of all hubs.
func (h *Hub) Everyone() Selection {
	return Selection{hub: h, kind: toEveryone}
}

// Except leaves out members, by their ID.
func (s Selection) Except(memberIDs ...string) Selection {
	s.except = slices.Concat(s.except, memberIDs)
	return s
}

// ExceptRooms leaves out the members of rooms, as they are when the message
// arrives at their hub.
func (s Selection) ExceptRooms(rooms ...string) Selection {
	s.exceptRooms = slices.Concat(s.exceptRooms, rooms)
	return s
}

// Local selects only those who are connected to this hub. A message does not
// leave the process; it has a place of its own in the order that each hub has.
func (s Selection) Local() Selection {
	s.local = true
	return s
}

// Volatile leaves out members that lag: those who have not read everything that
// came to the room before the message did. It suits what is worthless when it
// is late, such as the position of a pointer. What a member misses this way is
// not reported.
func (s Selection) Volatile() Selection {
	s.volatile = true
	return s
}

// Publish sends data to the selection; see Room.Publish, which it works like.
// Data is copied before Publish returns.
//
// A message to several rooms or members may reach some and fail for others: then
// the error holds one error for each that failed (errors.Is finds any of them).
//
// Errors besides those of Room.Publish are ErrEmptySelection, ErrInvalidMember
// for what cannot be a member ID, and ErrNoReceiver. A message to a member that
// has left its hub reaches nobody, without an error.
func (s Selection) Publish(ctx context.Context, data []byte) error {
	if err := s.check(data); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("fanout: publish: %w: %w", context.Cause(ctx), ErrUnsent)
	}
	h := s.hub
	if err := h.ops.begin(); err != nil {
		return fmt.Errorf("fanout: publish: %w", err)
	}
	defer h.ops.end()
	m := wire.Message{Except: s.except, ExceptRooms: s.exceptRooms, Volatile: s.volatile}
	if s.local {
		m.Data = slices.Clone(data)
		s.publishLocally(&m)
		return nil
	}
	m.Data = data
	switch s.kind {
	case toMembers:
		return s.publishToMembers(ctx, &m)
	case toEveryone:
		if err := h.awaitReady(ctx, nil); err != nil {
			return fmt.Errorf("fanout: publish to everyone: %w: %w", err, ErrUnsent)
		}
		return h.everyone.way().publish(ctx, &m)
	}
	return s.publishToRooms(ctx, &m)
}

// check says what is wrong with the selection or the data.
func (s Selection) check(data []byte) error {
	if s.hub == nil {
		return fmt.Errorf("%w: make one with Hub.In, Hub.To or Hub.Everyone", ErrEmptySelection)
	}
	if err := s.hub.checkSize(data); err != nil {
		return err
	}
	rooms, members := s.exceptRooms, s.except
	switch s.kind {
	case inRooms:
		if len(s.names) == 0 {
			return fmt.Errorf("%w: In names no room", ErrEmptySelection)
		}
		rooms = slices.Concat(rooms, s.names)
	case toMembers:
		if len(s.names) == 0 {
			return fmt.Errorf("%w: To names no member", ErrEmptySelection)
		}
		members = slices.Concat(members, s.names)
	}
	for _, name := range rooms {
		if err := wire.CheckRoom(name); err != nil {
			return invalidRoom(name, err)
		}
	}
	for _, id := range members {
		if _, err := hubOf(id); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hub) checkSize(data []byte) error {
	if limit := h.opts.MaxMessage; len(data) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed (Options.MaxMessage)", ErrTooLarge, len(data), limit)
	}
	return nil
}

func (s Selection) publishToRooms(ctx context.Context, m *wire.Message) error {
	rooms := unique(s.names)
	if len(rooms) > 1 {
		m.ID = s.hub.lastCopyID.Add(1)
	}
	return forAll(rooms, func(room string) error {
		rs := s.hub.acquire(room, s.hub.names.Room(room))
		defer s.hub.release(rs)
		return rs.way().publish(ctx, m)
	})
}

func (s Selection) publishToMembers(ctx context.Context, m *wire.Message) error {
	byHub := make(map[string][]string)
	var hubs []string
	for _, id := range unique(s.names) {
		hub, _ := hubOf(id) // checked before
		if byHub[hub] == nil {
			hubs = append(hubs, hub)
		}
		byHub[hub] = append(byHub[hub], id)
	}
	return forAll(hubs, func(hub string) error {
		one := *m
		one.To = byHub[hub]
		if hub == s.hub.id {
			one.Data = slices.Clone(m.Data)
			s.hub.sendTo(&one, s.hub.id)
			return nil
		}
		return s.hub.publishTo(ctx, hub, &one)
	})
}

// publishLocally gives a message to the members of this hub.
func (s Selection) publishLocally(m *wire.Message) {
	h := s.hub
	deliver := func(rs *roomState) {
		f := h.filterFor(h.num, m)
		rs.deliver(entry{data: m.Data, sender: h.id, volatile: m.Volatile, filter: f})
	}
	switch s.kind {
	case toMembers:
		m.To = unique(s.names)
		h.sendTo(m, h.id)
	case toEveryone:
		deliver(h.everyone)
	default:
		rooms := unique(s.names)
		if len(rooms) > 1 {
			m.ID = h.lastCopyID.Add(1)
		}
		for _, room := range rooms {
			if rs := h.lookup(h.names.Room(room)); rs != nil {
				deliver(rs)
			}
		}
	}
}

// forAll calls f for each name, at the same time, and returns all errors.
func forAll(names []string, f func(string) error) error {
	if len(names) == 1 {
		return f(names[0])
	}
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names[1:] {
		wg.Go(func() { errs[i+1] = f(name) })
	}
	errs[0] = f(names[0])
	wg.Wait()
	return errors.Join(errs...)
}

// unique returns the names without repetitions, in their order.
func unique(names []string) []string {
	if len(names) == 1 {
		return names
	}
	seen := make(map[string]bool, len(names))
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		again := seen[name]
		seen[name] = true
		return again
	})
}
