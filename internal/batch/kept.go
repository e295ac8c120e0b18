package batch

import (
	"fmt"
	"unsafe"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/follow"
	"github.com/fanoutgo/fanout/internal/item"
)

// A Kept is a batch of a room with a history.
type Kept struct {
	Batch
	Since int64 // when it was kept, by the caller's clock, in nanoseconds
}

// A KeptFrame is a frame of a room with a history, and its place there.
type KeptFrame = follow.Frame[Kept]

// OpenKept checks a frame that has a position, which the caller believes, and
// puts it into b, which is zero. It returns what is wrong with a frame that
// cannot be read.
func OpenKept(b *KeptFrame, f adapter.KeptFrame, now int64) error {
	err := b.Body.Open(f.Frame)
	if n := uint64(b.Body.Count()); err == nil && n > f.At.Offset {
		err = fmt.Errorf("%d messages that end at offset %d", n, f.At.Offset)
		b.Body.Batch = Batch{}
	}
	describe(b, len(f.Frame))
	b.At, b.First, b.Unreadable = f.At, f.At.Offset, err != nil
	if err == nil {
		b.First -= uint64(b.Messages) - 1
	}
	b.Body.Since = now - f.Age.Nanoseconds()
	return err
}

// WithoutPlace returns a batch of size bytes as a frame of a room with a
// history, without a place there.
func WithoutPlace(b *Batch, size int) KeptFrame {
	f := KeptFrame{Body: Kept{Batch: *b}}
	describe(&f, size)
	return f
}

// describe says what the follower of the history needs to know of the body of
// b.
func describe(b *KeptFrame, size int) {
	b.Header, b.Messages, b.Size = b.Body.Head, b.Body.Count(), size+int(unsafe.Sizeof(KeptFrame{}))
}

// UnpackKept makes u, which is zero, the unpacker of what comes after the first
// skip messages of a frame, with their positions.
func UnpackKept(u *Unpacker, b *KeptFrame, home *item.Home, skip int, sender string) {
	b.Body.Unpack(u, home, skip, sender)
	u.At = adapter.Position{Epoch: b.At.Epoch, Offset: b.First + uint64(skip) - 1}
}
