package reading

import (
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/follow"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// A Host is a room with a history. W is what has to be done after its log has
// changed, for example waking members.
type Host[W any] interface {
	Reader() *Reader
	// Mutex returns the lock of the room.
	Mutex() *locks.Mutex[locks.Room]
	// Name and Channel return the name of the room and that of its channel.
	Name() string
	Channel() string

	// The lock is held when these are called.

	// Window returns what the room holds for members that lag.
	Window() replay.Window
	// Follows reports whether the room is subscribed, and its history is
	// followed.
	Follows() bool
	// Put appends to the log what the follower has decided, with messages of
	// the frame, which may be nil if there are none.
	Put(a *follow.Append, b *batch.KeptFrame) W
	// Widened is called when the room begins to hold more than its window. The
	// host must then call Narrow from time to time, until it returns true.
	Widened()
	// WidenLog makes the log hold more than its window until Narrow returns true.
	WidenLog()
	// CaughtUp is called when the log has received all that it lacked, at once:
	// members may have fallen out of the window because of that.
	CaughtUp()
	// Kept is called when there are messages in the Store that expire. The host
	// must then call Store.Expire from time to time, until nothing is left.
	Kept()
	// Changed returns a channel that Tell closes.
	Changed() <-chan struct{}
	// Tell is called when a reading for the log has ended.
	Tell()

	// The lock is not held when this is called.

	// Wake does what follows Put.
	Wake(w W)
}

// A History is the history of one room. Init makes it. The lock of the room
// guards what changes.
type History[H Host[W], W any] struct {
	// Keep is how much of the history is kept. It is set before Init, and never
	// changed.
	Keep adapter.Retention

	host H

	// Follower says what goes into the log. Store has what members that come from
	// behind get. Its times are those of package clock.
	Follower follow.Follower[batch.Kept]
	Store    replay.Store[item.Entry]
}

// Init makes h, which is zero but for Keep, the history of a room. The numbers
// are those of the room's publishers.
func (h *History[H, W]) Init(host H, numbers *sequence.Tracker) {
	h.host = host
	h.Follower.Init(numbers)
}

// Forget forgets the history because the subscription of the room has ended.
// Members that wait for it still get it.
func (h *History[H, W]) Forget() {
	h.host.Mutex().AssertHeld()
	h.Follower.Unsubscribed()
	h.Store.Forget()
}

// Add stores messages that go into the log for members that come later. They
// were kept in the history at the time kept.
func (h *History[H, W]) Add(entries []item.Entry, kept int64) {
	h.host.Mutex().AssertHeld()
	h.Store.Add(entries, kept, h.host.Window())
	h.expire()
}

// expire tells the host that there are messages that expire, unless it knows.
func (h *History[H, W]) expire() {
	h.host.Mutex().AssertHeld()
	if h.Store.BeginExpiry() {
		h.host.Kept()
	}
}

// widen lets the room hold more than its window for a while.
func (h *History[H, W]) widen() {
	h.host.Mutex().AssertHeld()
	if h.Store.Widen(clock.Now()) {
		h.host.Widened()
	}
}

// Narrow ends what widen began, if it has not been needed for a while, and
// reports whether it did. If so, the log is narrowed as well.
func (h *History[H, W]) Narrow(now int64) bool {
	h.host.Mutex().AssertHeld()
	return h.Store.Narrow(now, h.Follower.CatchesUp(), h.host.Window())
}
