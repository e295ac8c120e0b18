package main

import "sync"

// A batch is frames that are written together. If each frame lies in memory
// right behind the one before, the batch is that memory; otherwise it is a
// copy.
type batch struct {
	frames []byte
	copied bool
	buf    []byte // for copies
}

// add adds a frame.
func (b *batch) add(frame []byte) {
	n := len(b.frames)
	switch {
	case n == 0:
		b.frames, b.copied = frame, false
	case b.copied:
		b.frames = append(b.frames, frame...)
	case n < cap(b.frames) && &b.frames[:n+1][n] == &frame[0]:
		b.frames = b.frames[:n+len(frame)]
	default:
		b.frames = append(append(b.buf[:0], b.frames...), frame...)
		b.copied = true
	}
}

// reset empties the batch.
func (b *batch) reset() {
	if b.copied {
		b.buf = b.frames
	}
	b.frames, b.copied = nil, false
}

// batches are shared by all sockets, since most are idle at any time.
var batches = sync.Pool{New: func() any { return new(batch) }}
