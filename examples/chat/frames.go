package main

import (
	"sync"
	"sync/atomic"

	"github.com/fanoutgo/fanout"
)

// textFrame returns a document as a WebSocket frame. What a server sends is not
// masked, so the frame is the same for every page.
func textFrame(doc []byte) []byte {
	const longestHeader = 10
	f := append(make([]byte, 0, longestHeader+len(doc)), final|opText)
	switch n := len(doc); {
	case n < 126:
		f = append(f, byte(n))
	case n < 1<<16:
		f = append(f, 126, byte(n>>8), byte(n))
	default: // no document has 4 GiB
		f = append(f, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(f, doc...)
}

// The first byte of a frame: https://www.rfc-editor.org/rfc/rfc6455#section-5.2.
const (
	final   = 0x80 // the message ends with this frame
	opText  = 0x1
	opClose = 0x8
	control = 0x8 // all opcodes from here on are of control frames
)

// frames has the frames of messages. Almost always that is a message's data as
// it is, with its position if the room keeps a history; but anybody who reaches
// Redis can publish anything, and a frame that is not UTF-8 makes a browser hang
// up. So each message is examined, which costs more than all the rest, and
// therefore once: all members of the process share its frame. A message is
// recognised by the address of its bytes when the next member comes along.
type frames struct {
	// Two generations: when the young one is large enough it becomes the old
	// one, and what was in that is forgotten. Keys are *byte, values *frame.
	young, old atomic.Pointer[sync.Map]
	size       atomic.Int64 // of the young one, about, in bytes
}

type frame struct {
	data  []byte // of the message; keeps anything else from getting its address
	at    fanout.Position
	bytes []byte
}

// is reports whether the frame is that of m, whose data begins where the
// frame's does. Data that went to several rooms may be the same bytes in all of
// them, but it has a position in each.
func (f *frame) is(m *fanout.Message) bool {
	return len(f.data) == len(m.Data) && f.at == m.Position
}

// generation is the size of one, in bytes. A few thousand chat messages are
// more than a room's window holds, so members that lag find theirs as well.
const generation = 4 << 20

func newFrames() *frames {
	f := new(frames)
	f.young.Store(new(sync.Map))
	f.old.Store(new(sync.Map))
	return f
}

// of returns the frame of a message. Nobody may modify it.
func (f *frames) of(m *fanout.Message) []byte {
	if len(m.Data) == 0 || len(m.Data) > generation/16 {
		return textFrame(documentOf(m)) // there is no address, or too much to keep
	}
	young, key := f.young.Load(), &m.Data[0]
	known, ok := young.Load(key)
	if !ok {
		known, ok = f.old.Load().Load(key)
	}
	if ok && known.(*frame).is(m) {
		return known.(*frame).bytes
	}
	fresh := &frame{data: m.Data, at: m.Position, bytes: textFrame(documentOf(m))}
	young.Store(key, fresh)
	size := int64(len(fresh.data) + len(fresh.bytes) + 200)
	if now := f.size.Add(size); now >= generation && now-size < generation {
		f.old.Store(young)
		f.young.Store(new(sync.Map))
		f.size.Store(0)
	}
	return fresh.bytes
}
