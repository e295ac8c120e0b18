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

// appendFrame appends a document as a WebSocket frame. Servers do not mask
// frames, so the frame is the same for every page.
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

// frameSize returns the size of a document as a frame, or a few bytes more.
func frameSize(doc []byte) int { return 10 + len(doc) }

// frames has the frames of messages. Nearly always a frame is a message's data
// as it is, with its position if the room keeps a history. But other programs
// can publish to Redis too, and a frame that is not UTF-8 makes a browser close
// the connection. So each message is examined, which costs more than everything
// else, and therefore only once: all members of the process share its frame.
// The address of a message's data identifies its frame for the next member.
//
// Members of a room read the same messages in the same order. So each frame
// knows the frame that was wanted after it, and in a burst the frames lie one
// behind the other in memory: most batches are found with one search, and
// written without copying (see batch).
type frames struct {
	// Two generations: when the young one is large enough it becomes the old
	// one, and the previous old one is forgotten. Keys are *byte, values
	// *frame.
	young, old atomic.Pointer[sync.Map]

	mu     sync.Mutex // held while a frame is made; guards all below
	gen    int        // number of the young one
	size   int        // of the young generation, in bytes, about
	latest *frame     // that was made; nil: there is none
	room   string     // of its message
}

type frame struct {
	data  []byte // of the message; kept so that its address is not reused
	at    fanout.Position
	room  string
	bytes []byte
	gen   int // the generation that it belongs to

	// next is never of an older generation, so that a frame keeps alive only
	// frames that were made later. Nil: no frame was wanted after this one.
	next atomic.Pointer[frame]

	// strip is the size of the strip of memory that contains bytes, 0 if there
	// is none, and rest is the free part behind bytes: nil if another frame is
	// there, empty if the strip is full. All frames of a strip are of one
	// generation. Guarded by frames.mu.
	strip int
	rest  []byte
}

// is reports whether the frame is that of m. A message to several rooms may
// have the same bytes in all of them.
func (f *frame) is(m *fanout.Message) bool {
	return len(f.data) == len(m.Data) && &f.data[0] == &m.Data[0] && f.at == m.Position && f.room == m.Room
}

const (
	// generation is the size of a generation, in bytes. A few thousand chat
	// messages are more than a room's window holds, so that members that lag
	// find their frames too. The last message of a generation may be as long as
	// a hub accepts.
	generation = 4 << 20
	// Strips grow as a burst continues.
	minStrip = 4 << 10
	maxStrip = 512 << 10
)

func newFrames() *frames {
	f := new(frames)
	f.young.Store(new(sync.Map))
	f.old.Store(new(sync.Map))
	return f
}

// of returns the frame of a message that a member reads after that of prev
// (nil: it is the first). Nobody may modify the frame.
func (f *frames) of(m *fanout.Message, prev *frame) *frame {
	if len(m.Data) == 0 {
		return &frame{bytes: textFrame(documentOf(m))} // no data has no address
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

// lay makes the frame of a message, behind the latest frame of its room or
// behind prev if there is room.
func (f *frames) lay(m *fanout.Message, doc []byte, prev *frame) *frame {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.find(m); known != nil {
		return known // another goroutine was faster
	}
	if f.latest != nil && f.room == m.Room {
		prev = f.latest
	}
	fresh := &frame{data: m.Data, at: m.Position, room: m.Room, gen: f.gen}
	f.latest, f.room = fresh, m.Room
	size, taken := frameSize(doc), 0
	switch {
	case prev == nil, prev.strip > 0 && prev.rest == nil: // the first frame, or there is another one behind prev
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

// keep adds a frame, for which taken bytes of memory were used. f.mu is held.
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
