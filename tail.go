package fanout

import (
	"sort"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
)

const (
	// chunkMessages and chunkBytes bound a chunk of a tail: what a member holds
	// that stops reading while it reads from there.
	chunkMessages = 64
	chunkBytes    = 64 << 10

	// wideBytes is what a room may hold beyond its window while its history is
	// read, and for wideTime after that: members that come from behind meet
	// what has been said meanwhile, however small the window is.
	wideBytes = 4 << 20
	wideTime  = time.Second
	// entryBytes is about what an entry takes beside its data.
	entryBytes = 80
)

// A tail is the latest messages of a room that keeps a history, without a gap
// among them, for members that come from behind. It is a chain of chunks: members
// hold one of them and not all.
type tail struct {
	chunks []*chunk         // the last one grows
	count  int              // of entries
	bytes  int              // of their data
	start  adapter.Position // the backend's; what comes after it is here
	// whole: there is nothing before start, or it is not kept any more.
	whole bool
}

// A chunk is a run of messages. What is in it is never changed; members have
// slices of it.
type chunk struct {
	entries []item.Entry
	times   []int64 // when each was kept, by our own clock: see ticks
	bytes   int
}

// reset empties the tail. Before the first message of a history there is nothing.
func (t *tail) reset(start adapter.Position) { *t = tail{start: start, whole: start.Offset == 0} }

// add appends messages. Volatile ones are not for those who come later. A wide
// tail holds more than the window.
func (t *tail) add(entries []item.Entry, kept int64, w Window, wide bool) {
	for i := range entries {
		if !entries[i].Volatile && !entries[i].At.IsZero() {
			t.push(entries[i], kept)
		}
	}
	if t.exceeds(2*w.Messages, 2*w.Bytes) && !(wide && t.fits()) {
		t.cut(w, wide)
	}
}

func (t *tail) push(e item.Entry, kept int64) {
	var c *chunk
	if n := len(t.chunks); n > 0 {
		c = t.chunks[n-1]
	}
	if c == nil || len(c.entries) >= chunkMessages || c.bytes+e.Size() > chunkBytes && len(c.entries) > 0 {
		c = new(chunk)
		if len(t.chunks) > 0 { // the room is busy enough
			c.entries, c.times = make([]item.Entry, 0, chunkMessages), make([]int64, 0, chunkMessages)
		}
		t.chunks = append(t.chunks, c)
	}
	c.entries = append(c.entries, e)
	c.times = append(c.times, kept)
	c.bytes += e.Size()
	t.count++
	t.bytes += e.Size()
}

func (t *tail) exceeds(messages, bytes int) bool { return t.count > messages || t.bytes > bytes }

// fits reports whether the tail is within what a wide one may hold.
func (t *tail) fits() bool { return t.bytes+t.count*entryBytes <= wideBytes }

// cut drops the oldest chunks, so that the rest is no more than a window and a
// chunk; or, of a wide tail, than that may hold.
func (t *tail) cut(w Window, wide bool) {
	n := 0
	for ; n < len(t.chunks)-1; n++ {
		c := t.chunks[n]
		if !t.exceeds(w.Messages+len(c.entries)-1, w.Bytes) || wide && t.fits() {
			break
		}
		t.count -= len(c.entries)
		t.bytes -= c.bytes
		t.start = c.entries[len(c.entries)-1].At
	}
	if n > 0 {
		clear(t.chunks[:n])
		t.chunks = t.chunks[n:]
		t.whole = false
	}
}

// expire drops the chunks of which everything was kept before a time. The backend
// does not have that any more either, so the tail is as whole as it was.
func (t *tail) expire(oldest int64) {
	n := 0
	for ; n < len(t.chunks); n++ {
		c := t.chunks[n]
		last := len(c.entries) - 1
		if c.times[last] >= oldest {
			break
		}
		t.count -= len(c.entries)
		t.bytes -= c.bytes
		t.start = c.entries[last].At
	}
	clear(t.chunks[:n])
	if t.chunks = t.chunks[n:]; len(t.chunks) == 0 {
		t.chunks = nil
	}
}

// search finds the first entry for which after is true, as sort.Search does. No
// chunk is returned if there is none.
func (t *tail) search(after func(e *item.Entry) bool) (c, i int) {
	c = sort.Search(len(t.chunks), func(c int) bool {
		e := t.chunks[c].entries
		return after(&e[len(e)-1])
	})
	if c < len(t.chunks) {
		e := t.chunks[c].entries
		i = sort.Search(len(e), func(i int) bool { return after(&e[i]) })
	}
	return c, i
}

// next returns some of the messages after a position of the backend's, if all up
// to pos are here: those that keep allows to be handed out. The zero position
// asks for all that is kept. Where the tail ends the part does at pos.
func (t *tail) next(since, pos adapter.Position, keep Retention) (p part, ok bool) {
	oldest := ticks() - keep.Age.Nanoseconds()
	if since.IsZero() {
		if !t.whole {
			return part{}, false
		}
		c, i := t.search(func(e *item.Entry) bool { return e.At.Offset+uint64(keep.Messages) > pos.Offset })
		for c < len(t.chunks) && t.chunks[c].times[i] < oldest {
			if i++; i == len(t.chunks[c].entries) {
				c, i = c+1, 0
			}
		}
		return t.part(c, i, pos), true
	}
	if since.Before(t.start) || pos.Before(since) || pos.Offset > since.Offset+uint64(keep.Messages) {
		return part{}, false
	}
	c, i := t.search(func(e *item.Entry) bool { return since.Before(e.At) })
	if c == len(t.chunks) {
		// Nothing was said since, but since may lie on a way that the history
		// has not gone.
		return part{end: pos}, since.Epoch == pos.Epoch || since == t.start
	}
	next := t.chunks[c].entries[i].At
	if next.Epoch > since.Epoch && since.Offset >= next.Offset || t.chunks[c].times[i] < oldest {
		return part{}, false
	}
	return t.part(c, i, pos), true
}

// part returns a chunk from an entry on.
func (t *tail) part(c, i int, pos adapter.Position) part {
	if c == len(t.chunks) {
		return part{end: pos}
	}
	e := t.chunks[c].entries
	p := part{entries: e[i:len(e):len(e)], end: e[len(e)-1].At}
	if c == len(t.chunks)-1 {
		p.end = pos
	}
	return p
}

// extend puts what was read before the tail, if it reaches it. pos is where the
// tail ends.
func (t *tail) extend(p *page, pos adapter.Position, w Window, wide bool) {
	if p.end.Before(t.start) || len(p.entries) == 0 || !p.from.Before(t.start) {
		return
	}
	first, start := p.solid()
	// What is beyond pos is still on its way to us, and will be added then.
	n := sort.Search(len(p.entries), func(i int) bool { return pos.Before(p.entries[i].At) })
	if n <= first {
		return
	}
	longer := tail{start: start, whole: p.since.IsZero() && first == 0}
	for i := first; i < n; i++ {
		longer.push(p.entries[i], p.times[i])
	}
	c, from := t.search(func(e *item.Entry) bool { return p.end.Before(e.At) })
	for ; c < len(t.chunks); c, from = c+1, 0 {
		for i := from; i < len(t.chunks[c].entries); i++ {
			longer.push(t.chunks[c].entries[i], t.chunks[c].times[i])
		}
	}
	if longer.exceeds(w.Messages, w.Bytes) {
		longer.cut(w, wide)
	}
	if longer.start.Before(t.start) {
		*t = longer
	}
}
