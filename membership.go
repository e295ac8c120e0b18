package fanout

import (
	"context"
	"sync/atomic"

	"github.com/fanoutgo/fanout/internal/roomlog"
)

// A membership is a member in a room: its cursor into the room's log. It is
// used for one stay; who leaves and joins again gets a new one. There are as many
// as members and rooms are combined, so it is kept small.
type membership struct {
	cursor roomlog.Cursor[entry, *membership] // a cache line; what follows is another
	member *Member
	room   *roomState
	place  *place // nil in most rooms that keep no history

	// left is set when the member has left or closed: nothing more is read.
	left      stay
	joined    bool        // the cursor is open. Guarded by roomState.mu
	queued    bool        // in the member's ready queue. Guarded by Member.readyMu
	sinceHigh uint16      // see since; there is room for 47 bits. Guarded by roomState.mu
	nextReady *membership // there. Guarded by Member.readyMu

	next, prev *membership // in the room. Guarded by roomState.mu
	joiners    int32       // Joins that wait on it. Guarded by Member.mu
	// opened is the run of the room's numbers in which the cursor was opened.
	// Written under roomState.mu, before anybody reads with the cursor.
	opened uint32
}

// A place is where a membership is in its room's history, and what is being done
// to get it there.
type place struct {
	// What is being waited for on behalf of the membership; nil: nothing.
	// Guarded by roomState.mu.
	waits *waits

	// How the member comes to the log: it resumes, or it fell out of the window;
	// nil when it is there. Guarded by roomState.mu until the membership is joined,
	// then by Member.walk.
	replay *replay
	// What is not after this position has been read elsewhere. Set before the
	// member learns that there is something to read; then guarded by Member.walk.
	after Position
	// How far the member has come, as users see it. Set and guarded like after.
	last Position
	// The history cannot be read: what has fallen out of the window is a gap, and
	// the next time it is tried again. Guarded by Member.walk.
	plain  bool
	behind atomic.Int32 // one of those below: then it does not count as slow
}

// Why a member is out of the window and not slow.
const (
	within  int32 = iota // it is not
	follows              // it comes from behind, and has not caught up since
	pushed               // the hub caught up faster than it could read
)

// waits are the calls that wait on behalf of a membership. Guarded by
// roomState.mu.
type waits struct {
	// giveUp ends a call of the adapter that a Join makes, or the reading of what
	// a member missed that fell out of the window; nil if there is none.
	giveUp context.CancelCauseFunc
	// moved is closed when the member has left or is in the room, and when its
	// Resume has failed; nil: nobody waits for that.
	moved chan struct{}
}

func (ms *membership) init(m *Member, rs *roomState) {
	ms.member, ms.room = m, rs
	if rs.kept != nil {
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

// A stay is over when its lowest bit is set. The others are the lower ones of
// membership.since: there is no room for them elsewhere.
type stay struct{ bits atomic.Uint32 }

// Load reports whether the stay is over.
func (s *stay) Load() bool { return s.bits.Load()&1 != 0 }

// end makes it so.
func (s *stay) end() { s.bits.Or(1) }

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

// whenMoved returns a channel that is closed when the member has left or is in
// the room, and when its Resume has failed.
func (ms *membership) whenMoved() <-chan struct{} {
	ms.room.mu.AssertHeld()
	w := ms.waiting()
	if w.moved == nil {
		w.moved = make(chan struct{})
	}
	return w.moved
}

// tell wakes those who wait for whenMoved.
func (ms *membership) tell() {
	ms.room.mu.AssertHeld()
	if p := ms.place; p != nil && p.waits != nil && p.waits.moved != nil {
		close(p.waits.moved)
		p.waits.moved = nil
	}
}

// doneWaiting is called when a membership is put into its room: nobody waits
// for that any more.
func (ms *membership) doneWaiting() {
	ms.room.mu.AssertHeld()
	ms.tell()
	if ms.room.kept == nil {
		ms.place = nil
	} else {
		ms.place.waits = nil
	}
}

// wait waits until c or moved is closed. It ends earlier, with an error, with
// ctx, the member, or the hub.
func (ms *membership) wait(ctx context.Context, c, moved <-chan struct{}) error {
	select {
	case <-c:
	case <-moved:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ms.member.Done():
		return ms.member.endError()
	case <-ms.room.hub.closing:
		return ErrClosed
	}
	return nil
}

// awaitChange waits for c on behalf of a Join, as wait does. It is over when the
// member has left, or is in the room.
func (ms *membership) awaitChange(ctx context.Context, c <-chan struct{}) (over bool, err error) {
	rs := ms.room
	rs.mu.Lock()
	if ms.left.Load() || ms.joined {
		rs.mu.Unlock()
		return true, nil
	}
	moved := ms.whenMoved()
	rs.mu.Unlock()
	return false, ms.wait(ctx, c, moved)
}

// caughtUp notes that the member is within the window.
func (ms *membership) caughtUp() {
	if p := ms.place; p != nil && p.behind.Load() != within {
		p.behind.Store(within)
	}
}

// pass notes how far the member has come in the room's history.
func (ms *membership) pass(entries []entry) {
	if n := len(entries); n > 0 && ms.place != nil {
		if at := entries[n-1].position; !at.IsZero() {
			ms.place.last = at
		}
	}
}

// endError is why a membership that has left did so.
func (ms *membership) endError() error {
	if err := ms.member.endError(); err != nil {
		return err
	}
	return ErrLeft
}

// An entry is a message in a log.
type entry struct {
	data     []byte
	sender   string
	position Position
	filter   *filter // nil: it is for everyone
	volatile bool
}

// Counts and Size implement roomlog.Item.
func (e entry) Counts() bool { return !e.volatile }
func (e entry) Size() int    { return len(e.data) + e.filter.size() }
