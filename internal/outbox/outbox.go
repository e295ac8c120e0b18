package outbox

import (
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
)

// MaxFrame bounds the messages of a frame that holds several, in bytes. A
// larger message goes alone. It has room for some hundred chat messages, which
// bounds what a room publishes in a round trip to the backend, and what a
// receiver that holds one message keeps alive of the others.
const MaxFrame = 64 << 10

// A State says whether a frame is under way.
type State uint8

const (
	// Idle means that nothing is under way. The next publisher sends its
	// message by itself.
	Idle State = iota
	// Sending means that a frame is under way, and that its sender holds the
	// turn. What is published meanwhile gathers.
	Sending
)

// A Result is what became of a frame.
type Result uint8

const (
	// Taken means that the backend has the frame.
	Taken Result = iota
	// Unsent means that nobody can have seen the frame.
	Unsent
	// Uncertain means that the frame may have arrived, or that it was
	// delivered here though the backend did not take it.
	Uncertain
)

// An Outbox is the messages that wait to be sent to one channel, and the number
// of the next. W is what the owner keeps about the publishers of a frame. The
// zero value is Idle and has numbered nothing.
type Outbox[W any] struct {
	state   State
	pending []*Frame[W] // the last may still grow
	usual   int         // bytes of messages of the last frame that gathered

	stream, next uint64 // zero: nothing has been numbered
}

// State returns the outbox's state.
func (o *Outbox[W]) State() State { return o.state }

// Begin takes the turn. It reports false if somebody else holds it.
func (o *Outbox[W]) Begin() bool {
	if o.state == Sending {
		return false
	}
	o.state = Sending
	return true
}

// Gather returns the pending frame that a message of size bytes joins. Somebody
// else holds the turn.
func (o *Outbox[W]) Gather(size int) *Frame[W] {
	if n := len(o.pending); n > 0 && o.pending[n-1].fits(size) {
		return o.pending[n-1]
	}
	f := NewFrame[W](max(size, o.usual))
	o.pending = append(o.pending, f)
	return f
}

// Queue puts a notice behind what is pending. Somebody else holds the turn.
func (o *Outbox[W]) Queue(notice *Frame[W]) { o.pending = append(o.pending, notice) }

// Withdraw takes a message, at its place, out of a pending frame. It reports
// false, and does nothing, if the frame is under way or has arrived.
func (o *Outbox[W]) Withdraw(f *Frame[W], at Span) bool {
	if f.begun {
		return false
	}
	f.withdraw(at)
	return true
}

// Next returns the next frame to send, with the expired ones before it, which
// are not to be sent; all are begun. With a nil frame the turn is over: the
// outbox is Idle. The caller holds the turn.
func (o *Outbox[W]) Next(now time.Time) (f *Frame[W], expired []*Frame[W]) {
	for len(o.pending) > 0 {
		f := o.pop()
		if f.count == 0 {
			continue // all of its messages were withdrawn
		}
		f.close()
		f.begun = true
		if f.expired(now) {
			expired = append(expired, f)
			continue
		}
		if !f.notice {
			o.usual = min(len(f.bytes)-wire.Overhead, MaxFrame)
		}
		return f, expired
	}
	if len(expired) == 0 {
		o.state = Idle
	} // otherwise the caller still holds the turn: it handles those and calls Next again
	return nil, expired
}

func (o *Outbox[W]) pop() *Frame[W] {
	f := o.pending[0]
	o.pending[0] = nil
	if o.pending = o.pending[1:]; len(o.pending) == 0 {
		o.pending = nil
	}
	return f
}

// Number gives a frame the next numbers and writes its header. A notice stays
// as it is. newStream is called if the outbox has no stream yet. The caller
// holds the turn.
func (o *Outbox[W]) Number(f *Frame[W], hub uint64, newStream func() uint64, now time.Time) {
	if f.notice {
		f.numbered = now
		return
	}
	if o.stream == 0 {
		o.stream, o.next = newStream(), 1
	}
	f.number(wire.Header{Hub: hub, Stream: o.stream, Seq: o.next, Count: f.count}, now)
}

// Done notes what became of a numbered frame. The caller holds the turn.
func (o *Outbox[W]) Done(f *Frame[W], r Result) {
	if r != Unsent && !f.notice {
		o.next += uint64(f.count)
	}
}

// Numbers returns the stream and the next number, zero if nothing has been
// numbered. Nobody holds the turn.
func (o *Outbox[W]) Numbers() (stream, next uint64) { return o.stream, o.next }

// Restore continues the numbers of an earlier outbox of the channel.
func (o *Outbox[W]) Restore(stream, next uint64) { o.stream, o.next = stream, next }
