package outbox

import (
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
)

// A Frame is messages to one channel that travel together. They are encoded as
// they are added, so the frame does not refer to the publishers' data. Until
// Next returns the frame, the lock of its outbox guards it; from then on it
// belongs to the holder of the turn.
type Frame[W any] struct {
	bytes     []byte // room for a header, then the messages; once numbered, the frame
	count     int    // of messages
	withdrawn []Span
	notice    bool // sent as it is, alone and without a number
	begun     bool
	ends      time.Time // zero: it has no deadline of its own
	head      wire.Header
	numbered  time.Time

	// Waiters is what the owner keeps about the frame's publishers.
	Waiters W
}

// A Span is the place of a message in a frame.
type Span struct{ from, to int }

// NewFrame returns a frame with room for size bytes of messages.
func NewFrame[W any](size int) *Frame[W] {
	return &Frame[W]{bytes: make([]byte, wire.Overhead, wire.Overhead+size)}
}

// NewNotice returns a frame that is sent as it is, in its turn. It has no
// number, and no message joins it.
func NewNotice[W any](bytes []byte) *Frame[W] {
	return &Frame[W]{bytes: bytes, count: 1, notice: true}
}

// Notice reports whether NewNotice made the frame.
func (f *Frame[W]) Notice() bool { return f.notice }

// Add writes a message and returns its place.
func (f *Frame[W]) Add(m *wire.Message) Span {
	from := len(f.bytes)
	f.bytes = wire.AppendMessage(f.bytes, m)
	f.count++
	return Span{from, len(f.bytes)}
}

// Expire sets when the frame is given up, unless an earlier call has.
func (f *Frame[W]) Expire(at time.Time) {
	if f.ends.IsZero() {
		f.ends = at
	}
}

// Ends returns when the frame is given up; zero if it has no deadline of its
// own.
func (f *Frame[W]) Ends() time.Time { return f.ends }

// Bytes returns the frame as it is sent. It is numbered.
func (f *Frame[W]) Bytes() []byte { return f.bytes }

// Forget drops the frame's bytes, since its waiters may be kept for a long
// time.
func (f *Frame[W]) Forget() { f.bytes = nil }

// Header returns the header of a numbered frame.
func (f *Frame[W]) Header() *wire.Header { return &f.head }

// Count returns the number of messages.
func (f *Frame[W]) Count() int { return f.count }

// Numbered returns when the frame was numbered.
func (f *Frame[W]) Numbered() time.Time { return f.numbered }

// Begun reports whether the frame has left the outbox: nobody joins it or
// withdraws from it.
func (f *Frame[W]) Begun() bool { return f.begun }

// fits reports whether a message of size bytes may join the others.
func (f *Frame[W]) fits(size int) bool {
	return !f.notice && len(f.bytes)-wire.Overhead+size <= MaxFrame
}

// withdraw notes that a message is not to be sent. No message is moved before
// close, since other publishers know the places of theirs.
func (f *Frame[W]) withdraw(at Span) {
	f.withdrawn = append(f.withdrawn, at)
	if f.count--; f.count == 0 {
		f.bytes, f.withdrawn = make([]byte, wire.Overhead), nil
	}
}

// close takes out what was withdrawn. Nothing is added after it.
func (f *Frame[W]) close() {
	slices.SortFunc(f.withdrawn, func(a, b Span) int { return b.from - a.from })
	for _, s := range f.withdrawn {
		f.bytes = slices.Delete(f.bytes, s.from, s.to)
	}
	f.withdrawn = nil
}

func (f *Frame[W]) expired(now time.Time) bool { return !f.ends.IsZero() && !now.Before(f.ends) }

// number writes the header in front of the messages.
func (f *Frame[W]) number(head wire.Header, now time.Time) {
	head.Time = uint64(now.UnixMilli())
	var room [wire.Overhead]byte
	h := wire.AppendHeader(room[:0], &head)
	f.head, f.numbered = head, now
	f.bytes = f.bytes[wire.Overhead-len(h):]
	copy(f.bytes, h)
}
