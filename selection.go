package fanout

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/unsent"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Selection says whom a message is for. It is a value: each method returns a
// changed copy. A Selection may be kept and used again, from any goroutine.
//
// A selection of no rooms, users or members is an error ([ErrEmptySelection])
// and never means everybody. A selection names at most 1,024 of them, and
// leaves out at most 1,024 members and 1,024 rooms; more is [ErrTooLarge].
// Repeated names count once.
type Selection struct {
	hub         *Hub
	kind        selectionKind
	names       []string // rooms, users, or member IDs; like except and exceptRooms without repetitions
	except      []string
	exceptRooms []string
	local       bool
	volatile    bool
	unkept      bool
}

type selectionKind uint8

const (
	inRooms selectionKind = iota + 1
	toMembers
	toEveryone
	toUsers
)

// In selects the members of one or more rooms. A member of several of them gets
// a message once, in the room in which it reads it first.
//
// For that the hub remembers which of these messages each member has received,
// for as long as another copy can come: from the window of a room that the
// member has not read, from a room to which the message is still being
// published, or from the history of a room that the member resumes (see
// [Room.Resume]). A message may reach a member twice if publishing it to one of
// the rooms takes longer than 30 s and longer than twice
// [Options.PublishTimeout].
func (h *Hub) In(rooms ...string) Selection {
	return Selection{hub: h, kind: inRooms, names: distinct(rooms)}
}

// To selects members by their IDs, wherever they are connected. A message is
// sent to the hubs that have these members and to no other.
func (h *Hub) To(memberIDs ...string) Selection {
	return Selection{hub: h, kind: toMembers, names: distinct(memberIDs)}
}

// Everyone selects all members of all hubs.
func (h *Hub) Everyone() Selection {
	return Selection{hub: h, kind: toEveryone}
}

// Except leaves out members, by their ID.
func (s Selection) Except(memberIDs ...string) Selection {
	s.except = distinct(s.except, memberIDs...)
	return s
}

// ExceptRooms leaves out the members of rooms, as they are when the message
// arrives at each hub. (A member that leaves more than 64 rooms before it reads
// a message may get it although it was in one of the first of those rooms.)
func (s Selection) ExceptRooms(rooms ...string) Selection {
	s.exceptRooms = distinct(s.exceptRooms, rooms...)
	return s
}

// Local selects only members that are connected to this hub. The message does
// not leave the process, and its place in the order of a room is this hub's
// alone.
func (s Selection) Local() Selection {
	s.local = true
	return s
}

// Volatile leaves out members that lag: those that have not yet read everything
// that came to the room before the message. It suits messages that are
// worthless when they are late, such as the position of a pointer. Messages
// that a member misses in this way are not reported.
func (s Selection) Volatile() Selection {
	s.volatile = true
	return s
}

// Unkept keeps messages out of the history of a room: members that are in the
// room get them, members that resume do not. It suits hints, such as that
// somebody is typing. In a room without a history it has no effect.
//
// Such a message has no place in the history and no number. So a member that
// misses one is not told, hubs that catch up with the history may deliver it
// before messages that were published earlier, and hubs of a release that does
// not know these messages ignore it. Options.LocalFallback does not deliver it.
func (s Selection) Unkept() Selection {
	s.unkept = true
	return s
}

// Publish sends data to the selection. It works like [Room.Publish], and copies
// data before it returns.
//
// A message to several rooms or members may reach some of them and fail for
// others. The error then has a [PublishError] for each that failed, and
// errors.Is finds the cause of any of them. It wraps [ErrUnsent] only if the
// message was sent to none.
//
// A message to everyone first waits for the hub's own channels to be subscribed
// (see [Hub.Ready]), at most until ctx ends, or for [Options.PublishTimeout] if
// ctx has no deadline. If the backend refuses these channels the error is
// [ErrRefused].
//
// Errors besides those of Room.Publish are [ErrNoReceiver] and, for an invalid
// selection, [ErrEmptySelection], [ErrInvalidUser], [ErrInvalidMember] for a
// string that cannot be a member ID, and [ErrTooLarge] for too many names. An
// error that is known before anything is sent is no PublishError. A message to
// a member that has left its hub reaches nobody, without an error.
func (s Selection) Publish(ctx context.Context, data []byte) error {
	if err := s.check(data); err != nil {
		return failed("publish", adapter.Unsent(err))
	}
	if ctx.Err() != nil {
		return failed("publish", adapter.Unsent(context.Cause(ctx)))
	}
	h := s.hub
	if err := h.begin(); err != nil {
		return failed("publish", adapter.Unsent(err))
	}
	defer h.ops.Leave(1)
	if s.local {
		s.publishLocally(s.message(data))
		return nil
	}
	if s.kind == toEveryone && !h.own.Succeeded() {
		var release func()
		ctx, release = h.bound(ctx)
		defer release()
	}
	targets, err := s.targets(ctx, s.message(data))
	if err != nil {
		return err
	}
	return forAll(targets, func(t target) error {
		if t.out == nil {
			t.deliver(h)
			return nil
		}
		defer t.out.Release()
		if s.passesBy(t.out) {
			return t.out.PublishUnkept(ctx, &t.message)
		}
		return t.out.Publish(ctx, &t.message)
	})
}

// PublishAsync publishes without waiting for the backend. It works like
// [Room.PublishAsync]. It calls done once, when the outcome is known for all
// rooms or members of the selection, with all their errors. The errors that
// PublishAsync itself returns are those of [Selection.Publish] that are known
// before anything is sent.
func (s Selection) PublishAsync(ctx context.Context, data []byte, done func(error)) error {
	if err := s.check(data); err != nil {
		return failed("publish", adapter.Unsent(err))
	}
	h := s.hub
	if err := h.begin(); err != nil {
		return failed("publish", adapter.Unsent(err))
	}
	defer h.ops.Leave(1)
	if s.local {
		acks, err := h.publishers.BeginAll(ctx, 1, len(data), done)
		if err != nil {
			return failed("publish", err)
		}
		s.publishLocally(s.message(data))
		h.publishers.Tell(acks, nil)
		return nil
	}
	targets, err := s.targets(ctx, s.message(data))
	if err != nil {
		return err
	}
	acks, err := h.publishers.BeginAll(ctx, len(targets), len(data), done)
	for i, t := range targets {
		switch {
		case err != nil && t.out != nil:
			t.out.Release()
		case err != nil:
		case t.out == nil:
			t.deliver(h)
			h.publishers.Tell(acks[i:i+1], nil)
		case s.passesBy(t.out):
			t.out.PublishUnkeptAsync(&t.message, acks[i])
		default:
			t.out.PublishAsync(&t.message, acks[i])
		}
	}
	return failed("publish", err)
}

func (s Selection) message(data []byte) *wire.Message {
	return &wire.Message{Except: s.except, ExceptRooms: s.exceptRooms, Volatile: s.volatile, Data: data}
}

// check returns what is wrong with the selection or the data, or nil.
func (s Selection) check(data []byte) error {
	if s.hub == nil {
		return fmt.Errorf("%w: make one with Hub.In, Hub.User, Hub.To or Hub.Everyone", ErrEmptySelection)
	}
	if err := s.hub.checkSize(data); err != nil {
		return err
	}
	if err := s.checkLengths(); err != nil {
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
	case toUsers:
		if err := checkUsers(s.names); err != nil {
			return err
		}
	}
	for _, name := range rooms {
		if err := wire.CheckRoom(name); err != nil {
			return fmt.Errorf("%w %s: %w", ErrInvalidRoom, quoteName(name), err)
		}
	}
	for _, id := range members {
		if _, err := hubOf(id); err != nil {
			return err
		}
	}
	return nil
}

// checkLengths refuses a selection with too many names.
func (s Selection) checkLengths() error {
	what := [...]string{inRooms: "rooms", toMembers: "members", toEveryone: "rooms", toUsers: "users"}[s.kind]
	for _, list := range [...]struct {
		says  string
		names []string
	}{{"names " + what, s.names}, {"leaves out members", s.except}, {"leaves out rooms", s.exceptRooms}} {
		if n := len(list.names); n > maxNames {
			return fmt.Errorf("%w: the selection %s: %d of them, at most %d are allowed", ErrTooLarge, list.says, n, maxNames)
		}
	}
	return nil
}

// publishLocally gives a message to the members of this hub.
func (s Selection) publishLocally(m *wire.Message) {
	h := s.hub
	switch s.kind {
	case toMembers:
		to := wire.Message{To: s.names}
		h.sendTo(to.View().To, roomlog.Gap{}, []item.Entry{h.home.Own(h.num, m)})
	case toEveryone:
		h.everyone.deliver(h.home.Own(h.num, m))
	case toUsers:
		s.publishToUsersHere(m)
	default:
		if len(s.names) > 1 {
			m.ID = h.newCopyID()
		}
		e := h.home.Own(h.num, m)
		for _, room := range s.names {
			if r := h.lookup(h.names.Room(room)); r != nil {
				r.deliver(e)
			}
		}
	}
}

// forAll calls f for each target, at the same time, and returns all errors.
func forAll(targets []target, f func(target) error) error {
	if len(targets) == 1 {
		return f(targets[0])
	}
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets[1:] {
		wg.Go(func() { errs[i+1] = f(t) })
	}
	errs[0] = f(targets[0])
	wg.Wait()
	return unsent.Join(errs)
}

// maxNames bounds each list of names in a selection, and with it what the hubs
// that get the message have to do for it.
const maxNames = wire.MaxList

// distinct returns a copy of names, and more, without repetitions, in their
// order.
func distinct(names []string, more ...string) []string {
	all := slices.Concat(names, more)
	if len(all) <= 1 {
		return all
	}
	seen := make(map[string]struct{}, len(all))
	return slices.DeleteFunc(all, func(name string) bool {
		if _, again := seen[name]; again {
			return true
		}
		seen[name] = struct{}{}
		return false
	})
}
