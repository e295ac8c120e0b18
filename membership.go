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
	left      atomic.Bool
	joined    bool        // the cursor is open. Guarded by roomState.mu
	queued    bool        // in the member's ready queue. Guarded by Member.readyMu
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
	// giveUp ends the call of the adapter that a Join makes for this stay, or the
	// wait for history of who fell out of the window; nil if there was none.
	// Guarded by roomState.mu.
	giveUp context.CancelCauseFunc

	// Of a Resume: where it begins, nil once it is in the room. Guarded by
	// roomState.mu.
	resuming *resumption
	// What comes before the log, and after which position. Set before the member
	// learns that there is something to read; then guarded by Member.walk.
	backlog *backlog
	after   Position
	// How far the member has come, as users see it. Set and guarded like backlog.
	last Position
	// The history cannot be read: what falls out of the window is a gap. Guarded by
	// Member.walk.
	plain bool
	// behind is set while the member reads what it resumed with, and has not
	// caught up since: it does not count as slow.
	behind atomic.Bool
}

func (ms *membership) init(m *Member, rs *roomState) {
	ms.member, ms.room = m, rs
	if rs.kept != nil {
		ms.place = new(place)
	}
}

// Wake is called when there is something to read after the cursor had parked:
// it implements roomlog.Owner.
func (ms *membership) Wake() { ms.member.enqueue(ms) }

// resumes reports whether the membership is to begin at a place in the history.
// roomState.mu is held.
func (ms *membership) resumes() bool { return ms.place != nil && ms.place.resuming != nil }

// canBeGivenUp notes what ends a call that is made for this stay when the member
// leaves. roomState.mu is held.
func (ms *membership) canBeGivenUp(cancel context.CancelCauseFunc) {
	if ms.place == nil {
		ms.place = new(place)
	}
	ms.place.giveUp = cancel
}

// caughtUp notes that the member is within the window.
func (ms *membership) caughtUp() {
	if p := ms.place; p != nil && p.behind.Load() {
		p.behind.Store(false)
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
func (e entry) Size() int    { return len(e.data) }
