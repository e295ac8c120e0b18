package fanout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/item"
)

// The values of Member.err. A member that is alive may change to any of the
// others, and one that is finishing to those after it.
const (
	alive     uint32 = iota
	finishing        // it still reads what is left for it, and cannot join; see finish
	closed           // ErrClosed is its final error
	slow             // ErrSlow is
	dismissed        // extras.ending has its final error
)

// standingOf returns the value for a final error.
func standingOf(err error) uint32 {
	switch {
	case errors.Is(err, ErrSlow):
		return slow
	case isReason(err):
		return dismissed
	}
	return closed
}

// isReason reports whether an error is the final error of a member that was
// finished.
func isReason(err error) bool {
	_, is := errors.AsType[*ClosedError](err)
	return is
}

// An ending is what a member that is finishing still has to read.
type ending struct {
	err      *ClosedError
	deadline time.Time // it ends then, whatever is left; zero: never
	// marks has how far the member reads in each of its rooms. Guarded by
	// Member.walk.
	marks map[*membership]uint64
}

// passed reports whether the member gets no more messages of a room. The caller
// has peeked at what is next there.
func (e *ending) passed(ms *membership) bool {
	mark, some := e.marks[ms]
	return !some || ms.cursor.Ends(mark)
}

// cut returns the items before a cursor that the member still gets.
func (e *ending) cut(ms *membership, items []item.Entry) []item.Entry {
	if len(items) == 0 {
		return nil
	}
	return items[:ms.cursor.Until(e.marks[ms])]
}

// over returns the final error of a member that is finishing (e is not nil), if
// it has received everything and gets no message now (n is 0).
func (e *ending) over(n int) error {
	if e == nil || n > 0 || len(e.marks) > 0 {
		return nil
	}
	return e.err
}

// Err returns why the member has ended, or nil while it has not: a
// [*ClosedError] after [Selection.Close] or [Hub.Drain], [ErrSlow] if it was
// too slow, or [ErrClosed] after Member.Close or [Hub.Close]. Receive returns
// the same error, wrapped. Err is not nil once the channel of Done is closed.
func (m *Member) Err() error { return m.endError() }

// endError returns the final error, or nil while the member has not ended.
func (m *Member) endError() error {
	switch m.err.Load() {
	case alive, finishing:
		return nil
	case slow:
		return ErrSlow
	case dismissed:
		return m.more.Load().ending.err
	}
	return ErrClosed
}

// refusal returns why no new messages reach the member: the final error that it
// has or will have. It is nil while the member is alive.
func (m *Member) refusal() error {
	if m.err.Load() == finishing {
		return m.more.Load().ending.err
	}
	return m.endError()
}

// standing returns what the member still has to read if it is finishing, or its
// final error.
func (m *Member) standing() (last *ending, err error) {
	switch m.err.Load() {
	case alive:
		return nil, nil
	case finishing:
		return m.more.Load().ending, nil
	}
	return nil, m.endError()
}

// closeGrace is how long a member that was closed with a reason may take to
// read what is left for it.
const closeGrace = 5 * time.Second

// finish closes the member in order. It receives what is in its rooms by now,
// and then final. In the room of a place, if there is one, it receives what
// comes before that. From now on the member counts as
// gone: it is in no room, and a Join fails. It ends when Receive returns the
// final error, or at the deadline (zero: there is none). A member that has read
// everything and that nobody has ever received from ends at once.
//
// It has no effect on a member that is finishing or has ended. Locks of rooms
// must not be held.
func (m *Member) finish(final *ClosedError, deadline time.Time, at roomPlace) {
	e := &ending{err: final, deadline: deadline, marks: make(map[*membership]uint64)}
	if left := m.retire(e, at); !left {
		m.end(e.err)
		return
	}
	m.wakeUp()
	m.hub.janitor.wake()
}

// retire takes a member out of the lists of its rooms. It reports whether the
// member has yet to learn that it ends, and to read what is left.
func (m *Member) retire(e *ending, at roomPlace) (left bool) {
	m.walk.Lock()
	defer m.walk.Unlock()
	if !m.beginEnding(e) {
		return true
	}
	h := m.hub
	h.mu.Lock()
	h.unregister(m)
	h.leaving[m.num] = m
	everyone := m.extras().everyone
	h.mu.Unlock()

	m.mu.Lock()
	all := m.rooms.List()
	if d := m.extras().direct; d != nil && !d.cursor.AtEnd() {
		e.marks[&d.membership] = d.log.Mark()
	}
	m.mu.Unlock()
	if everyone != nil {
		all = append(all, everyone)
	}
	for _, ms := range all {
		mark := at.mark
		if joined := ms.retire(&mark, ms.room == at.room); !joined || ms.hasReadAll() {
			m.dismiss(ms)
		} else {
			e.marks[ms] = mark
		}
	}
	return m.received || len(e.marks) > 0
}

// beginEnding makes the member one that is finishing, if it is alive.
func (m *Member) beginEnding(e *ending) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err.Load() != alive {
		return false
	}
	m.extras().ending = e
	m.err.Store(finishing)
	return true
}

// retire takes a membership off the list of its room, which stays subscribed
// until the member has read up to a mark: the one that is given, or the end. It
// reports whether the membership is joined.
func (ms *membership) retire(mark *uint64, given bool) (joined bool) {
	r := ms.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if !ms.joined {
		return false
	}
	ms.retired = true
	r.life.Use() // a history is still read for it
	r.unlist(ms)
	if !given {
		*mark = r.log.Mark()
	}
	return true
}

// unlist takes a membership off the list of the room's members.
func (r *room) unlist(ms *membership) {
	r.mu.AssertHeld()
	r.members.Remove(ms)
	r.life.Leave()
	r.hasLeft(ms)
}

// dismiss takes a member that is finishing out of a room of which it has got
// everything.
func (m *Member) dismiss(ms *membership) {
	m.walk.AssertHeld()
	m.mu.Lock()
	if m.rooms.Get(ms.room.channel) == ms {
		m.rooms.Delete(ms.room.channel)
		m.depart(ms)
	}
	ms.left.end()
	m.mu.Unlock()
	m.remove(ms)
}

// passedOver notes that a member that may be finishing gets no more of a room.
func (m *Member) passedOver(ms *membership) {
	m.walk.AssertHeld()
	last, _ := m.standing()
	if last == nil {
		return
	}
	delete(last.marks, ms)
	if len(last.marks) == 0 {
		m.wakeUp()
	}
}

// errDraining is the final error of members that Drain ends.
var errDraining = ClosedError{Reason: "hub is closing", Draining: true}

// Drain ends the hub's members in order, before [Hub.Close]. Once it is called
// Connect fails with [ErrClosed]. Drain first waits, for a second at most, for
// messages that the backend has acknowledged to reach this hub. Then joins fail
// as well. Each member receives what is in its rooms by then, and after that a
// [*ClosedError] whose Draining is true. Publishing still works.
//
// Drain returns nil when all members have ended. A member ends when Receive has
// returned the error. (If nobody has ever received from it, and it has nothing
// to receive, it ends at once.) If ctx ends first, the members that are left
// end at once, and the error says how many they were. If the hub is closed
// meanwhile the error is ErrClosed. A second call waits for the same members.
//
// A Drain that [MemberOptions.OnReady] calls would wait for itself until ctx
// ends, since members learn by OnReady that they end. In [Options.OnJoin] and
// OnLeave it delays the calls after it.
//
// The package documentation has the order in which to stop a server.
func (h *Hub) Drain(ctx context.Context) error {
	if h.isClosing() {
		return failed("drain", ErrClosed)
	}
	drained := h.beginDrain()
	h.awaitArrivals(ctx)
	h.mu.RLock()
	members := slices.Collect(maps.Values(h.members))
	h.mu.RUnlock()
	for _, m := range members {
		final := errDraining // a user may change it
		m.finish(&final, time.Time{}, roomPlace{})
	}
	select {
	case <-drained:
	case <-ctx.Done():
		slow := h.leavingMembers()
		for _, m := range slow {
			m.endNow()
		}
		if len(slow) > 0 {
			return fmt.Errorf("fanout: drain: members that had not received everything: %d: %w", len(slow), context.Cause(ctx))
		}
	case <-h.closing:
		return failed("drain", ErrClosed)
	}
	return nil
}

// arrivalTime bounds how long Drain waits for messages that are on their way to
// this hub.
const arrivalTime = time.Second

// awaitArrivals waits until a message of the hub to itself has come back. What
// the backend acknowledged before comes earlier, if it comes by the same link.
func (h *Hub) awaitArrivals(ctx context.Context) {
	if h.alone || !h.own.Succeeded() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, arrivalTime)
	defer cancel()
	_ = h.echo(ctx) // without a backend nothing is on its way
}

// beginDrain refuses new members. It returns what is closed when none is left.
func (h *Hub) beginDrain() (drained <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.drained == nil {
		h.drained = make(chan struct{})
	}
	h.tellDrained()
	return h.drained
}

// tellDrained tells Drain when no member is left.
func (h *Hub) tellDrained() {
	h.mu.AssertHeld()
	if h.drained == nil || len(h.members)+len(h.leaving) > 0 {
		return
	}
	select {
	case <-h.drained:
	default:
		close(h.drained)
	}
}

// leavingMembers returns the members that are finishing.
func (h *Hub) leavingMembers() []*Member {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Collect(maps.Values(h.leaving))
}

// endNow ends a member that is finishing.
func (m *Member) endNow() { m.end(m.more.Load().ending.err) }

// endLate ends the members that are finishing and whose deadline has passed. It
// returns when to look again (zero: there is nothing to look at).
func (h *Hub) endLate(now time.Time) (next time.Time) {
	for _, m := range h.leavingMembers() {
		due := m.more.Load().ending.deadline
		switch {
		case due.IsZero():
		case !due.After(now):
			m.endNow()
		case next.IsZero() || due.Before(next):
			next = due
		}
	}
	return next
}
