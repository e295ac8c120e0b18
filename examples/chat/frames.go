package main

import (
	"sync"
	"sync/atomic"

	"github.com/fanoutgo/fanout"
)

// textFrame returns a document as a WebSocket frame.
func textFrame(doc []byte) []byte {
	return appendFrame(make([]byte, 0, frameSize(doc)), doc)
}

// appendFrame appends a document as a WebSocket frame. What a server sends is not
// masked, so the frame is the same for every page.
func appendFrame(b, doc []byte) []byte {
	b = append(b, final|opText)
	switch n := len(doc); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 126, byte(n>>8), byte(n))
	default: // no document has 4 GiB
		b = append(b, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, doc...)
}

// frameSize is what a document takes as a frame, or a few bytes more.
func frameSize(doc []byte) int { return 10 + len(doc) }

// frames has the frames of messages. Almost always that is a message's data as
// it is, with its position if the room keeps a history; but anybody who reaches
// Redis can publish anything, and a frame that is not UTF-8 makes a browser hang
// up. So each message is examined, which costs more than all the rest, and
// therefore once: all members of the process share its frame. A message is
// recognised by the address of its bytes when the next member comes along.
//
// Members of a room read the same messages in the same order. So each frame knows
// the one that was wanted after it, and where many come at a time they lie one after
// the other: most batches are found with one search, and written from where they
// lie (see batch).
type frames struct {
	// Two generations: when the young one is large enough it becomes the old
	// one, and what was in that is forgotten. Keys are *byte, values *frame.
	young, old atomic.Pointer[sync.Map]

	mu     sync.Mutex // of who lays a frame down; guards all below
	gen    int        // number of the young one
	size   int        // of it, about, in bytes
	latest *frame     // that was laid down; nil: there is none
	room   string     // of its message
}

type frame struct {
	data  []byte // of the message; keeps anything else from getting its address
	at    fanout.Position
	room  string
	bytes []byte
	gen   int // the generation that it belongs to

	// next is never of an older generation: who holds a frame, for as long as a batch
	// takes, holds none that are forgotten but those that came after it. Nil: nobody
	// has wanted another after it.
	next atomic.Pointer[frame]

	// The size of the strip of memory that bytes is in, 0 if it is in none, and what
	// of it is free behind bytes: nil if there is another frame, empty if it is full.
	// All frames of a strip are of one generation. Guarded by frames.mu.
	strip int
	rest  []byte
}

// is reports whether the frame is that of m. Data that went to several rooms may be
// the same bytes in all of them.
func (f *frame) is(m *fanout.Message) bool {
	return len(f.data) == len(m.Data) && &f.data[0] == &m.Data[0] && f.at == m.Position && f.room == m.Room
}

const (
	// generation is the size of one, in bytes. A few thousand chat messages are
	// more than a room's window holds, so members that lag find theirs as well.
	// The message that fills a generation may be as long as a hub takes it.
	generation = 4 << 20
	// Strips grow as a burst goes on.
	minStrip = 4 << 10
	maxStrip = 512 << 10
)

func newFrames() *frames {
	f := new(frames)
	f.young.Store(new(sync.Map))
	f.old.Store(new(sync.Map))
	return f
}

// of returns the frame of a message, which somebody reads after that of prev (nil:
// it is the first). Nobody may modify it.
func (f *frames) of(m *fanout.Message, prev *frame) *frame {
	if len(m.Data) == 0 {
		return &frame{bytes: textFrame(documentOf(m))} // there is no address
	}
	if prev != nil {
		if next := prev.next.Load(); next != nil && next.is(m) {
			return next
		}
	}
	known := f.find(m)
	if known == nil {
		known = f.lay(m, documentOf(m), prev)
	}
	if prev != nil && len(prev.data) > 0 && prev.gen <= known.gen {
		prev.next.CompareAndSwap(nil, known)
	}
	return known
}

// find returns the frame of a message, or nil.
func (f *frames) find(m *fanout.Message) *frame {
	key := &m.Data[0]
	known, ok := f.young.Load().Load(key)
	if !ok {
		known, ok = f.old.Load().Load(key)
	}
	if ok && known.(*frame).is(m) {
		return known.(*frame)
	}
	return nil
}

// lay makes the frame of a message, behind the latest of its room or that of prev if
// there is room.
func (f *frames) lay(m *fanout.Message, doc []byte, prev *frame) *frame {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.find(m); known != nil {
		return known // somebody was faster
	}
	if f.latest != nil && f.room == m.Room {
		prev = f.latest
	}
	fresh := &frame{data: m.Data, at: m.Position, room: m.Room, gen: f.gen}
	f.latest, f.room = fresh, m.Room
	size, taken := frameSize(doc), 0
	switch {
	case prev == nil, prev.strip > 0 && prev.rest == nil: // the first, or there is another behind it
		fresh.bytes, taken = textFrame(doc), size
	case size > len(prev.rest), prev.gen != f.gen:
		taken = max(size, min(max(4*prev.strip, minStrip), maxStrip))
		fresh.strip = taken
		fresh.cutFrom(make([]byte, taken), doc)
	default:
		fresh.strip = prev.strip
		fresh.cutFrom(prev.rest, doc)
		prev.rest = nil
	}
	f.keep(fresh, taken)
	return fresh
}

// cutFrom makes a frame at the beginning of some memory.
func (f *frame) cutFrom(memory, doc []byte) {
	f.bytes = appendFrame(memory[:0], doc)
	f.rest = memory[len(f.bytes):]
}

// keep has a frame found from now on, for which so much memory was taken. f.mu is
// held.
func (f *frames) keep(fresh *frame, taken int) {
	young := f.young.Load()
	young.Store(&fresh.data[0], fresh)
	if f.size += len(fresh.data) + taken + 200; f.size >= generation {
		f.old.Store(young)
		f.young.Store(new(sync.Map))
		f.gen++
		f.size = 0
	}
}
