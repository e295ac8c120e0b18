package replay

import (
	"sort"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// An Item is a message of a room with a history. One that does not count is not
// delivered to members that come later.
type Item interface {
	roomlog.Item
	// Place is where it is in the history; zero: it is not there.
	Place() adapter.Position
}

// A Window is what a room holds for members that lag.
type Window struct{ Messages, Bytes int }

const (
	// chunkMessages and chunkBytes bound a chunk of Recent. A member that stops
	// reading keeps one chunk in memory.
	chunkMessages = 64
	chunkBytes    = 64 << 10

	// wideBytes is what a room may hold beyond its window while its history is
	// read, and for WideTime after that. So members that come from behind find
	// what was published meanwhile, however small the window is.
	wideBytes = 4 << 20
	// WideTime is how long a room stays wide when its history is not read any
	// more.
	WideTime = time.Second
	// entryBytes is roughly the memory of an item without its data.
	entryBytes = 80
)

// Recent are the recent messages of a room, without a gap among them. They are
// in a chain of chunks, so that a member keeps one chunk in memory and not all.
type Recent[E Item] struct {
	chunks []*chunk[E]      // the last one grows
	count  int              // of items
	bytes  int              // of their data
	start  adapter.Position // the messages after it are here
	// whole is set if the history keeps nothing from before start.
	whole bool
}

// A chunk is a run of messages. It grows, but its messages never change, since
// members have slices of it.
type chunk[E Item] struct {
	items []E
	times []int64 // when each was kept
	bytes int
}

// Reset empties r. The messages that are added next come after start.
func (r *Recent[E]) Reset(start adapter.Position) {
	*r = Recent[E]{start: start, whole: start.Offset == 0}
}

// Empty reports whether there are no messages.
func (r *Recent[E]) Empty() bool { return len(r.chunks) == 0 }

// add appends messages that were kept at a time. A wide room holds more than
// the window.
func (r *Recent[E]) add(items []E, kept int64, w Window, wide bool) {
	for i := range items {
		if items[i].Counts() && !items[i].Place().IsZero() {
			r.push(&items[i], kept)
		}
	}
	if r.exceeds(2*w.Messages, 2*w.Bytes) && !(wide && r.fits()) {
		r.cut(w, wide)
	}
}

func (r *Recent[E]) push(e *E, kept int64) {
	var c *chunk[E]
	if n := len(r.chunks); n > 0 {
		c = r.chunks[n-1]
	}
	size := (*e).Size()
	if c == nil || len(c.items) >= chunkMessages || c.bytes+size > chunkBytes && len(c.items) > 0 {
		c = new(chunk[E])
		if len(r.chunks) > 0 { // the room is busy enough
			c.items, c.times = make([]E, 0, chunkMessages), make([]int64, 0, chunkMessages)
		}
		r.chunks = append(r.chunks, c)
	}
	c.items = append(c.items, *e)
	c.times = append(c.times, kept)
	c.bytes += size
	r.count++
	r.bytes += size
}

func (r *Recent[E]) exceeds(messages, bytes int) bool { return r.count > messages || r.bytes > bytes }

// fits reports whether r is within what a wide room may hold.
func (r *Recent[E]) fits() bool { return r.bytes+r.count*entryBytes <= wideBytes }

// cut drops the oldest chunks, until no more than a window and a chunk are left
// or, in a wide room, no more than that may hold.
func (r *Recent[E]) cut(w Window, wide bool) {
	n := 0
	for ; n < len(r.chunks)-1; n++ {
		c := r.chunks[n]
		if !r.exceeds(w.Messages+len(c.items)-1, w.Bytes) || wide && r.fits() {
			break
		}
		r.drop(c)
	}
	if n > 0 {
		clear(r.chunks[:n])
		r.chunks = r.chunks[n:]
		r.whole = false
	}
}

// drop subtracts the first chunk from the totals.
func (r *Recent[E]) drop(c *chunk[E]) {
	r.count -= len(c.items)
	r.bytes -= c.bytes
	r.start = c.items[len(c.items)-1].Place()
}

// expire drops the chunks whose messages were all kept before the oldest time.
// The backend no longer has them either, so r stays whole if it was. It returns
// when the newest message of the first remaining chunk was kept.
func (r *Recent[E]) expire(oldest int64) (first int64, empty bool) {
	n := 0
	for ; n < len(r.chunks); n++ {
		c := r.chunks[n]
		if c.times[len(c.times)-1] >= oldest {
			break
		}
		r.drop(c)
	}
	clear(r.chunks[:n])
	if r.chunks = r.chunks[n:]; len(r.chunks) == 0 {
		r.chunks = nil
		return 0, true
	}
	times := r.chunks[0].times
	return times[len(times)-1], false
}

// search finds the first item for which after is true, as sort.Search does. No
// chunk is returned if there is none.
func (r *Recent[E]) search(after func(e *E) bool) (c, i int) {
	c = sort.Search(len(r.chunks), func(c int) bool {
		items := r.chunks[c].items
		return after(&items[len(items)-1])
	})
	if c < len(r.chunks) {
		items := r.chunks[c].items
		i = sort.Search(len(items), func(i int) bool { return after(&items[i]) })
	}
	return c, i
}

// next returns some of the messages after a position, if r has all of them up
// to pos, the position of the log. It leaves out messages that keep no longer
// allows. After the zero position a newcomer gets all that is kept, and another
// member, which came before there was a history, all that has been published. A
// part with the last messages of r ends at pos.
func (r *Recent[E]) next(since, pos adapter.Position, newcomer bool, keep adapter.Retention, now int64) (p Part[E], ok bool) {
	oldest := now - keep.Age.Nanoseconds()
	if since.IsZero() {
		if !r.whole {
			return p, false
		}
		c, i := r.search(func(e *E) bool { return (*e).Place().Offset+uint64(keep.Messages) > pos.Offset })
		for c < len(r.chunks) && r.chunks[c].times[i] < oldest {
			if i++; i == len(r.chunks[c].items) {
				c, i = c+1, 0
			}
		}
		p = r.part(c, i, pos)
		trimmed := pos.Offset // before the part
		if len(p.items) > 0 {
			trimmed = p.items[0].Place().Offset - 1
		}
		return p, newcomer || trimmed == 0
	}
	if since.Before(r.start) || pos.Before(since) || pos.Offset > since.Offset+uint64(keep.Messages) {
		return p, false
	}
	c, i := r.search(func(e *E) bool { return since.Before((*e).Place()) })
	if c == len(r.chunks) {
		// Nothing was published since, but since may be on a branch that the history
		// has left.
		return Part[E]{end: pos}, since.Epoch == pos.Epoch || since == r.start
	}
	next := r.chunks[c].items[i].Place()
	if next.Epoch > since.Epoch && since.Offset >= next.Offset || r.chunks[c].times[i] < oldest {
		return p, false
	}
	return r.part(c, i, pos), true
}

// part returns a chunk from an item on.
func (r *Recent[E]) part(c, i int, pos adapter.Position) Part[E] {
	if c == len(r.chunks) {
		return Part[E]{end: pos}
	}
	items := r.chunks[c].items
	p := Part[E]{items: items[i:len(items):len(items)], end: items[len(items)-1].Place()}
	if c == len(r.chunks)-1 {
		p.end = pos
	}
	return p
}

// extend puts the messages of a page before those of r, if the page reaches r.
// Pos is where r ends.
func (r *Recent[E]) extend(p *Page[E], pos adapter.Position, w Window, wide bool) {
	if p.end.Before(r.start) || len(p.items) == 0 || !p.from.Before(r.start) {
		return
	}
	first, start := p.contiguousFrom()
	// Messages beyond pos are still on their way to the log, and are added later.
	n := p.after(pos)
	if n <= first {
		return
	}
	longer := Recent[E]{start: start, whole: p.since.IsZero() && first == 0}
	for i := first; i < n; i++ {
		longer.push(&p.items[i], p.times[i])
	}
	c, from := r.search(func(e *E) bool { return p.end.Before((*e).Place()) })
	for ; c < len(r.chunks); c, from = c+1, 0 {
		for i := from; i < len(r.chunks[c].items); i++ {
			longer.push(&r.chunks[c].items[i], r.chunks[c].times[i])
		}
	}
	if longer.exceeds(w.Messages, w.Bytes) {
		longer.cut(w, wide)
	}
	if longer.start.Before(r.start) {
		*r = longer
	}
}
