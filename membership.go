package fanout

import (
	"context"
	"sync/atomic"

	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/linked"
	"github.com/fanoutgo/fanout/internal/notify"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// A membership is a member in a room: its cursor into the room's log. It is
// used for one stay: a member that leaves and joins again gets a new one. Each
// member has one for each of its rooms, so it is kept small.
type membership struct {
	cursor roomlog.Cursor[item.Entry, *membership] // a cache line; what follows is another
	member *Member                                 // nil: it is the mark of a walk over the room
	room   *room
	place  *place // nil in most rooms that have no history and no presence

	// left is set when the member has left or closed: nothing more is read.
	left      stay
	joined    bool        // the cursor is open. Guarded by room.mu
	retired   bool        // it is joined, and not counted in the room; see Member.finish. Guarded by room.mu
	sinceHigh uint16      // see since; there is room for 47 bits. Guarded by room.mu
	nextReady *membership // in the member's ready queue; nil: it is not there. Guarded by Member.readyMu

	links   linked.Links[membership] // in the room. Guarded by room.mu
	joiners int32                    // Joins that wait on it. Guarded by Member.mu
	// opened is the run of the room's numbers in which the cursor was opened.
	// Written under room.mu, before anybody reads with the cursor.
	opened uint32
}

// A place says where a membership is in its room's history, and how it gets to
// the log.
type place struct {
	// What is being waited for on behalf of the membership; nil: nothing.
	// Guarded by room.mu.
	waits *waits

	// How the member comes to the log: it resumes, or it fell out of the
	// window; nil when it is there. Guarded by room.mu until the
	// membership is joined, then by Member.walk.
	replay *memberReplay
	// Messages up to this position have been read elsewhere. Set before the member
	// learns that there is something to read; then guarded by Member.walk.
	after Position
	// How far the member has come, as users see it. Set and guarded like after.
	last Position
	// In a room with presence: the number of the list that the member got. Set
	// and guarded like after, as is lists.
	shown uint64
	lists bool // it gets a list next

	// The history cannot be read: messages that have fallen out of the window are
	// a gap. The next time the history is tried again. Guarded by Member.walk.
	plain  bool
	behind atomic.Int32 // one of the values below; if it is not within, the member does not count as slow
}

// Reasons why a member that is out of the window does not count as slow.
const (
	within  int32 = iota // it is not
	replays              // it comes from behind, and has not caught up since
	pushed               // the hub caught up faster than it could read
)

// waits are the calls that wait on behalf of a membership. Guarded by
// room.mu.
type waits struct {
	// cancel ends a call of the adapter that a Join makes, or the reading of
	// what a member missed that fell out of the window; nil if there is none.
	cancel context.CancelCauseFunc
	// moved tells that the member has left or is in the room, or that its Resume
	// has failed.
	moved notify.Notifier
	calls []*admitCall // of Options.Admit
}

func (ms *membership) init(m *Member, r *room) {
	ms.member, ms.room = m, r
	if r.kept != nil {
		ms.place = new(place)
	}
}

// since returns the number of the arrivals that had left out rooms when the
// membership began: see exceptions.
func (ms *membership) since() uint64 {
	ms.room.mu.AssertHeld()
	return uint64(ms.sinceHigh)<<31 | uint64(ms.left.bits.Load()>>1)
}

// setSince is called once, when the membership begins.
func (ms *membership) setSince(n uint64) {
	ms.room.mu.AssertHeld()
	ms.sinceHigh = uint16(n >> 31)
	ms.left.bits.Or(uint32(n) << 1)
}

// A stay is over when its lowest bit is set. The other bits are the lower ones
// of membership.since, for which there is no room elsewhere.
type stay struct{ bits atomic.Uint32 }

// Load reports whether the stay is over.
func (s *stay) Load() bool { return s.bits.Load()&1 != 0 }

// end ends the stay.
func (s *stay) end() { s.bits.Or(1) }

// Key implements few.Value.
func (ms *membership) Key() string { return ms.room.channel }

// Wake is called when there is something to read after the cursor had parked:
// it implements roomlog.Owner.
func (ms *membership) Wake() { ms.member.enqueue(ms) }

// resumes reports whether the membership is to begin at a place in the history.
func (ms *membership) resumes() bool {
	ms.room.mu.AssertHeld()
	return ms.place != nil && ms.place.replay != nil
}

// waiting returns the calls that wait on behalf of the membership.
func (ms *membership) waiting() *waits {
	ms.room.mu.AssertHeld()
	if ms.place == nil {
		ms.place = new(place)
	}
	if ms.place.waits == nil {
		ms.place.waits = new(waits)
	}
	return ms.place.waits
}

// WhenMoved returns a channel that is closed when the member has left or is in
// the room, and when its Resume has failed. It implements reading.Member.
func (ms *membership) WhenMoved() <-chan struct{} {
	ms.room.mu.AssertHeld()
	return ms.waiting().moved.Wait()
}

// tell wakes those that wait for WhenMoved.
func (ms *membership) tell() {
	ms.room.mu.AssertHeld()
	if p := ms.place; p != nil && p.waits != nil {
		p.waits.moved.Notify()
	}
}

// doneWaiting is called when a membership has been put into its room: nothing
// waits for that now.
func (ms *membership) doneWaiting() {
	ms.room.mu.AssertHeld()
	ms.tell()
	ms.place.waits.endCalls(ErrJoined)
	if ms.room.kept == nil && ms.room.presence() == nil {
		ms.place = nil
	} else {
		ms.place.waits = nil
	}
}

// Wait waits until c or moved is closed. It ends earlier, with an error, with
// ctx, the member, or the hub. It implements reading.Member.
func (ms *membership) Wait(ctx context.Context, c, moved <-chan struct{}) error {
	select {
	case <-c:
	case <-moved:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ms.member.Done():
		return ms.member.Err()
	case <-ms.room.hub.closing:
		return ErrClosed
	}
	return nil
}

// awaitChange waits for c on behalf of a Join, as Wait does. It is over when
// the member has left, or is in the room.
func (ms *membership) awaitChange(ctx context.Context, c <-chan struct{}) (over bool, err error) {
	r := ms.room
	r.mu.Lock()
	if ms.left.Load() || ms.joined {
		r.mu.Unlock()
		return true, nil
	}
	moved := ms.WhenMoved()
	r.mu.Unlock()
	return false, ms.Wait(ctx, c, moved)
}

// caughtUp notes that the member is within the window.
func (ms *membership) caughtUp() {
	ms.member.walk.AssertHeld()
	if p := ms.place; p != nil && p.behind.Load() != within {
		p.behind.Store(within)
	}
}

// pass notes how far the member has come in the room's history.
func (ms *membership) pass(entries []item.Entry) {
	ms.member.walk.AssertHeld()
	if n := len(entries); n > 0 && ms.place != nil {
		if at := entries[n-1].At; !at.IsZero() {
			ms.place.last = public(at, ms.room.kept.mark)
		}
	}
}

// endError is why a membership that has left did so.
func (ms *membership) endError() error {
	if err := ms.member.refusal(); err != nil {
		return err
	}
	return ErrLeft
}

// wasIn reports whether, when the message arrived, the member was in one of the
// rooms that it leaves out.
func (m *Member) wasIn(f *item.Filter, arrival uint64) bool {
	m.walk.AssertHeld()
	m.mu.Lock()
	defer m.mu.Unlock()
	for ms := range m.rooms.All {
		if f.ExcludesRoom(item.RoomHash(ms.room.name)) && ms.joinedBefore(arrival) {
			return true
		}
	}
	e := m.more.Load()
	return e != nil && e.departures.Exclude(f)
}

// joinedBefore reports whether a member had joined when a message arrived.
func (ms *membership) joinedBefore(arrival uint64) bool {
	ms.room.mu.Lock()
	defer ms.room.mu.Unlock()
	return ms.joined && ms.since() < arrival
}

// depart notes that the member is about to leave a room, if messages that leave
// out rooms have arrived during its stay. Some that the member has not read yet
// may leave out this room.
func (m *Member) depart(ms *membership) {
	m.mu.AssertHeld()
	left := m.hub.leftOut.Load()
	if left == 0 {
		return
	}
	ms.room.mu.Lock()
	joined, since := ms.joined, ms.since()
	ms.room.mu.Unlock()
	if !joined || since == left {
		return
	}
	m.extras().departures.Add(item.RoomHash(ms.room.name), since, left)
}

// forgetDepartures forgets them if the member has read everything in all of its
// rooms.
func (m *Member) forgetDepartures() {
	m.walk.AssertHeld()
	e := m.more.Load()
	if e == nil || m.hub.leftOut.Load() == 0 {
		return
	}
	m.hub.mu.RLock()
	everyone := e.everyone
	m.hub.mu.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !e.departures.None() && (everyone == nil || everyone.hasReadAll()) && m.hasReadAll(e) {
		e.departures.Clear()
	}
}

// hasReadAll reports whether the member has read everything in its rooms, and
// all direct messages.
func (m *Member) hasReadAll(e *extras) bool {
	m.walk.AssertHeld()
	m.mu.AssertHeld()
	if e.direct != nil && !e.direct.cursor.AtEnd() {
		return false
	}
	for ms := range m.rooms.All {
		if !ms.hasReadAll() {
			return false
		}
	}
	return true
}

// hasReadAll reports whether the member has read everything in the room.
func (ms *membership) hasReadAll() bool {
	ms.member.walk.AssertHeld()
	joined, behind := ms.whereabouts()
	return !behind && (!joined || ms.cursor.AtEnd())
}

// whereabouts reports whether the membership is in its room, and whether there
// are, or may be, messages to read before those in the room's log.
func (ms *membership) whereabouts() (joined, behind bool) {
	ms.member.walk.AssertHeld()
	ms.room.mu.Lock()
	defer ms.room.mu.Unlock()
	return ms.joined, ms.place != nil && ms.place.replay != nil
}

// A milestone is a place in a room that the member will reach.
type milestone struct {
	ms *membership
	at uint64
}

// ends returns the current ends of the member's rooms. It returns nil if older
// messages may still come to one of them: by a Resume, or because the hub is
// reading what it missed.
func (m *Member) ends() []milestone {
	m.walk.AssertHeld()
	marks := []milestone{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for ms := range m.rooms.All {
		r := ms.room
		joined, behind := ms.whereabouts()
		if behind || joined && !r.isWhole() {
			return nil
		}
		if joined {
			marks = append(marks, milestone{ms, r.log.Mark()})
		}
	}
	return marks
}

// passed reports whether the member has read everything up to the marks.
func (m *Member) passed(marks []milestone) bool {
	m.walk.AssertHeld()
	for _, k := range marks {
		if !k.ms.left.Load() && !k.ms.cursor.Passed(k.at) {
			return false
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for ms := range m.rooms.All {
		if _, behind := ms.whereabouts(); behind {
			return false
		}
	}
	return true
}

// A readyQueue has the memberships of a member that have something to read.
// Rooms take turns, so it is a queue. It has no memory of its own. Guarded by
// Member.readyMu.
type readyQueue struct {
	last *membership // followed by the first; nil: the queue is empty
}

func (q *readyQueue) empty() bool { return q.last == nil }

// push puts a membership at the end, unless it is in the queue. It reports
// whether it is the only one now, and was not there before.
func (q *readyQueue) push(ms *membership) (first bool) {
	switch {
	case ms.nextReady != nil:
		return false
	case q.last == nil:
		ms.nextReady = ms
		first = true
	default:
		ms.nextReady, q.last.nextReady = q.last.nextReady, ms
	}
	q.last = ms
	return first
}

// pop takes the first membership, nil if there is none.
func (q *readyQueue) pop() *membership {
	if q.last == nil {
		return nil
	}
	ms := q.last.nextReady
	if ms == q.last {
		q.last = nil
	} else {
		q.last.nextReady = ms.nextReady
	}
	ms.nextReady = nil
	return ms
}
