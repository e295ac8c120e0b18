package lane

import (
	"math"

	"github.com/fanoutgo/fanout/adapter"
)

// What is held at most; with more, a Lane does not wait any longer.
const (
	maxHeld      = 4096
	maxHeldBytes = 4 << 20
)

// A Kind is a method of a receiver.
type Kind uint8

const (
	Receive Kind = iota
	ReceiveKept
	Interrupted
	Moving
	Restored
)

// A Call is a call of a receiver.
type Call struct {
	Kind  Kind
	Frame adapter.KeptFrame // without a position for Receive
}

func (c *Call) size() int { return len(c.Frame.Frame) }

// A Task is what a Lane asks of its owner.
type Task uint8

const (
	Nothing Task = iota
	// Drain: find out where the history ended at the old backend, and call Head
	// or NoHead; publish a marker there, and call Marked when it comes; call
	// Drained if that takes too long.
	Drain
	// Sort: find out up to where the history at the new backend is a copy, and
	// call Copied; Copying if it is being made; or Unsorted if nobody can tell.
	Sort
)

// A status is what a backend, or the owner, has been told of a subscription.
type status uint8

const (
	up status = iota
	moving
	down
)

// after returns the status after a call.
func (s status) after(k Kind) status {
	switch k {
	case Interrupted:
		return down
	case Moving:
		return max(s, moving)
	case Restored:
		return up
	}
	return s
}

// A Lane is one channel of a hub. The zero Lane is Old.
//
// Methods that take calls append the calls of the receiver that follow to it,
// and return what the owner is to do.
type Lane struct {
	state State
	told  status // the receiver
	old   status
	new   status // before what is held
	held  []Call
	bytes int
	// head is where the history ended at the old backend. Up to its offset the
	// one at the new backend may be a copy.
	head   adapter.Position
	last   adapter.Position // of the frames that the old backend has brought
	copies copies
}

// copies are what is known of the copies at the new backend.
type copies struct {
	known   knowledge
	upTo    adapter.Position // zero: there are none, or they are delivered as well
	dropped uint64           // the highest offset of a frame that was taken for a copy
}

// A knowledge is what is known of the copies.
type knowledge uint8

const (
	unknown knowledge = iota // frames that may be copies are held
	assumed                  // a copy is being made: what has its offsets belongs to it
	known                    // it is complete, or there is none, or nobody can tell
)

// have reports whether a frame is a copy.
func (c *copies) have(at adapter.Position) bool {
	return at.Epoch == c.upTo.Epoch && at.Offset <= c.upTo.Offset
}

// Begin puts a lane into its state if the hubs have flipped before it began.
func (l *Lane) Begin() { l.state = New }

// State returns the state of the channel.
func (l *Lane) State() State { return l.state }

// NewDown reports whether the subscription at the new backend is interrupted.
func (l *Lane) NewDown() bool { return l.new != up }

// FromOld takes what the old backend has called.
func (l *Lane) FromOld(c Call, calls []Call) ([]Call, Task) {
	l.old = l.old.after(c.Kind)
	switch c.Kind {
	case ReceiveKept:
		l.last = c.Frame.At
		return append(calls, c), Nothing
	case Receive:
		return append(calls, c), Nothing
	}
	if !l.state.OldCounts() || l.state.ended() && c.Kind != Restored {
		return calls, Nothing
	}
	calls = l.tell(c.Kind, calls)
	if l.old == up {
		return calls, Nothing
	}
	return l.step(calls, broke)
}

// FromNew takes what the new backend has called.
func (l *Lane) FromNew(c Call, calls []Call) ([]Call, Task) {
	switch {
	case l.state == New:
		calls = l.deliver(c, calls)
		return calls, l.sort(New)
	case l.state == Old && c.Kind != Receive && c.Kind != ReceiveKept: // nobody publishes there yet
		l.new = l.new.after(c.Kind)
		return calls, Nothing
	}
	full := l.hold(c)
	switch {
	case full && l.state == Sorting:
		return l.Unsorted(calls)
	case full:
		return l.Drained(calls)
	case l.old != up:
		return l.step(calls, came, broke)
	}
	return l.step(calls, came)
}

// hold holds a call, and reports whether that is too much.
func (l *Lane) hold(c Call) (full bool) {
	l.held = append(l.held, c)
	l.bytes += c.size()
	return len(l.held) > maxHeld || l.bytes > maxHeldBytes
}

// Flip says that the hubs have flipped.
func (l *Lane) Flip(calls []Call) ([]Call, Task) {
	if l.old != up {
		return l.step(calls, flipped, broke)
	}
	return l.step(calls, flipped)
}

// Head says where the history ended at the old backend. The first one counts.
func (l *Lane) Head(at adapter.Position, calls []Call) ([]Call, Task) {
	if !l.state.headed() {
		l.head = at
	}
	return l.step(calls, headed)
}

// NoHead says that nobody can tell where the history ended at the old backend.
// Then it ended, as far as this channel goes, with the last frame that came.
func (l *Lane) NoHead(calls []Call) ([]Call, Task) { return l.Head(l.last, calls) }

// Marked says that a marker has come by the old backend.
func (l *Lane) Marked(calls []Call) ([]Call, Task) { return l.step(calls, marked) }

// Drained says that the owner does not wait for the old backend any longer.
func (l *Lane) Drained(calls []Call) ([]Call, Task) {
	if !l.state.headed() {
		l.head = l.last
	}
	return l.step(calls, gaveUp)
}

// Copying says that a copy is being made in an epoch of the new backend. Frames
// with offsets of the old history are taken for copies until Copied says more.
func (l *Lane) Copying(epoch uint64, calls []Call) ([]Call, Task) {
	if l.copies.known != unknown {
		return calls, Nothing
	}
	l.copies.known, l.copies.upTo = assumed, adapter.Position{Epoch: epoch, Offset: math.MaxUint64}
	return l.step(calls, sorted)
}

// Copied says up to where the history at the new backend is a copy of the old
// one; zero: it is none. The last one counts. If a frame was taken for a copy
// and is none, it is missing, and the receiver is told of an interruption.
func (l *Lane) Copied(upTo adapter.Position, calls []Call) ([]Call, Task) {
	if l.copies.dropped > upTo.Offset && l.told == up {
		calls = append(calls, Call{Kind: Interrupted}, Call{Kind: Restored})
	}
	l.copies = copies{known: known, upTo: upTo}
	return l.step(calls, sorted)
}

// Unsorted says that it cannot be found out which frames are copies. All of
// them are delivered, until Copied says more.
func (l *Lane) Unsorted(calls []Call) ([]Call, Task) {
	if l.copies.known == known {
		return calls, Nothing
	}
	return l.Copied(adapter.Position{}, calls)
}

// step changes the state by some events.
func (l *Lane) step(calls []Call, events ...event) ([]Call, Task) {
	was := l.state
	for _, e := range events {
		l.state = l.state.after(e)
	}
	switch {
	case l.state.drains() && !was.drains():
		return calls, Drain
	case l.state != New || was == New:
		return calls, Nothing
	case was.OldCounts():
		calls = l.takeOver(calls)
	}
	calls = l.release(calls)
	return calls, l.sort(was)
}

// sort returns the task of a lane that has come to be Sorting.
func (l *Lane) sort(was State) Task {
	if l.state == Sorting && was != Sorting {
		return Sort
	}
	return Nothing
}

// takeOver tells the receiver of the subscription at the new backend, which
// counts from now on.
func (l *Lane) takeOver(calls []Call) []Call {
	switch {
	case l.new == up:
		return l.tell(Restored, calls)
	case l.told == up:
		return l.tell(Interrupted, calls)
	}
	return calls
}

// release delivers held frames, up to the first one that may be a copy as long
// as that is not known.
func (l *Lane) release(calls []Call) []Call {
	held := l.held
	l.held, l.bytes = nil, 0
	for i, c := range held {
		if l.state == Sorting {
			for _, c := range held[i:] {
				l.hold(c)
			}
			break
		}
		calls = l.deliver(c, calls)
	}
	return calls
}

// deliver takes a call of the new backend, which counts.
func (l *Lane) deliver(c Call, calls []Call) []Call {
	switch c.Kind {
	case Receive:
		return append(calls, c)
	case ReceiveKept:
		at := c.Frame.At
		switch {
		case at.Offset > l.head.Offset, at.Epoch == l.head.Epoch: // one history at both has no copies
			return append(calls, c)
		case l.copies.known == unknown:
			l.hold(c)
			l.state = l.state.after(doubted)
			return calls
		case l.copies.have(at):
			l.copies.dropped = max(l.copies.dropped, at.Offset)
			return calls
		}
		return append(calls, c)
	}
	l.new = l.new.after(c.Kind)
	return l.tell(c.Kind, calls)
}

// tell appends a notice, unless the receiver knows it.
func (l *Lane) tell(k Kind, calls []Call) []Call {
	next := l.told.after(k)
	if next == l.told {
		return calls
	}
	l.told = next
	return append(calls, Call{Kind: k})
}
