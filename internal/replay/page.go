package replay

import (
	"sort"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

const (
	// PageMessages and PageBytes bound a page that is read for members. A
	// member that stops reading holds one page, so pages are small.
	PageMessages = 2048
	PageBytes    = 128 << 10
)

// A Page is a part of a room's history as it was read for members that come
// from behind. It is shared by them and not changed when it is complete: see
// NewPage.
type Page[E Item] struct {
	since adapter.Position // it was asked for what comes after this
	from  adapter.Position // items are all that the history keeps after this
	end   adapter.Position // where the page ends
	last  bool             // the history ended there
	info  adapter.Page     // without frames: the state of the history
	items []E              // without those that do not count
	times []int64          // when each was kept
	bad   []hole           // frames that cannot be read, or are not there

	first  uint64 // items have offsets after this
	before uint64 // the offset of the last frame

	unplaced bool // the first frame says where the page begins
}

// A hole stands for the messages of a frame that cannot be read, or of frames
// that are not in a page and should be.
type hole struct {
	before uint64 // offset before its first message
	at     adapter.Position
}

// missedAfter returns how many messages of the hole come after an offset. If
// that is more than anybody can have published, it returns 0, and absurd is
// set.
func (h *hole) missedAfter(offset uint64) (missed int, absurd bool) {
	return history.Count(h.at.Offset - min(max(h.before, offset), h.at.Offset))
}

// A Part is what a member gets next from the history: what is missing, then
// messages. The messages are shared with others: read only.
type Part[E Item] struct {
	gap   roomlog.Gap
	items []E
	end   adapter.Position // where the member is when it has read them
}

// NewPage begins the page of what the backend has returned for since. Frame is
// called for each frame, followed by Add for its messages, and End at the end.
func NewPage[E Item](since adapter.Position, read *adapter.Page) *Page[E] {
	a := history.Compare(read, since)
	p := &Page[E]{since: since, from: since, end: read.Head, last: !read.More, first: a.From, before: a.From, unplaced: a.Unplaced}
	if !history.Has(read, since) || a.Missed > 0 {
		p.from = adapter.Position{Epoch: read.Head.Epoch, Offset: a.From}
		if len(read.Frames) > 0 {
			p.from.Epoch = read.Frames[0].At.Epoch
		}
	}
	if read.More {
		p.end = read.Frames[len(read.Frames)-1].At
	}
	p.info = adapter.Page{Head: read.Head, Before: read.Before, First: read.First}
	return p
}

// Frame begins the next frame, given the offset of its first message and the
// position of its last one. The messages of an unreadable frame are missing.
// Since it is not known how many it has, first is the offset of the last.
func (p *Page[E]) Frame(first uint64, at adapter.Position, unreadable bool) {
	if p.unplaced {
		p.unplaced = false
		start := max(first-1, p.first) // what is kept may begin within the frame
		p.first, p.before, p.from.Offset = start, start, start
	}
	if unreadable {
		p.bad = append(p.bad, hole{p.before, at})
	} else if first-1 > p.before {
		p.bad = append(p.bad, hole{p.before, adapter.Position{Epoch: at.Epoch, Offset: first - 1}})
	}
	p.before = at.Offset
}

// Add adds the next message of the frame, and when it was kept.
func (p *Page[E]) Add(e E, kept int64) {
	if e.Counts() && e.Place().Offset > p.first {
		p.items = append(p.items, e)
		p.times = append(p.times, kept)
	}
}

// Miss says that the next message of the frame is there, but cannot be
// delivered.
func (p *Page[E]) Miss(at adapter.Position) {
	if at.Offset > p.first {
		p.bad = append(p.bad, hole{at.Offset - 1, at})
	}
}

// End ends the page.
func (p *Page[E]) End() {
	switch {
	case p.unplaced: // nothing is of a later epoch
		p.from = p.end
	case p.last && p.before < p.info.Head.Offset:
		p.bad = append(p.bad, hole{p.before, p.info.Head})
	}
}

// after returns the index of the first item after a position.
func (p *Page[E]) after(at adapter.Position) int { return after(p.items, at) }

func after[E Item](items []E, at adapter.Position) int {
	return sort.Search(len(items), func(i int) bool { return at.Before(items[i].Place()) })
}

// covers reports whether the page says what comes next after a position.
func (p *Page[E]) covers(at adapter.Position) bool {
	return !at.Before(p.since) && (p.last || at.Before(p.end))
}

// next returns the messages after a position that the page covers, up to the
// next place where something is or may be missing. For a newcomer, nothing from
// before it came is missing.
func (p *Page[E]) next(at adapter.Position, newcomer bool) Part[E] {
	a := history.Compare(&p.info, at)
	next := Part[E]{gap: roomlog.Gap{Missed: a.Missed, Unknown: a.Lost}, end: p.end}
	if at.IsZero() && !newcomer { // there was no history when the member came, so all of it is new
		missed, absurd := history.Count(a.From)
		next.gap = roomlog.Gap{Missed: missed, Unknown: absurd}
	}
	rest := p.items[p.after(at):]
	bad := p.bad[sort.Search(len(p.bad), func(i int) bool { return at.Before(p.bad[i].at) }):]
	for len(bad) > 0 && (len(rest) == 0 || bad[0].at.Before(rest[0].Place())) {
		missed, absurd := bad[0].missedAfter(a.From)
		next.gap.Missed += missed
		next.gap.Unknown = next.gap.Unknown || absurd
		bad = bad[1:]
	}
	epoch, counts := a.Epoch, !at.IsZero() && !newcomer
	if len(rest) > 0 {
		first := rest[0].Place().Epoch
		next.gap.Unknown = next.gap.Unknown || counts && !a.Lost && !p.whole(epoch, first)
		epoch = first
	}
	n := 0
	for n < len(rest) {
		e := rest[n].Place()
		if len(bad) > 0 && bad[0].at.Before(e) || !newcomer && !p.whole(epoch, e.Epoch) {
			next.items, next.end = rest[:n:n], rest[n-1].Place()
			return next
		}
		epoch = e.Epoch
		n++
	}
	next.items = rest[:n:n]
	switch {
	case len(bad) > 0:
		next.end = rest[n-1].Place()
	case counts && !a.Lost && !p.whole(epoch, p.end.Epoch):
		if n > 0 { // the next part begins with that gap
			next.end = rest[n-1].Place()
		} else {
			next.gap.Unknown = true
		}
	}
	return next
}

// whole reports whether nothing was lost on the way from one epoch to another.
func (p *Page[E]) whole(from, to uint64) bool {
	return from == to || history.Whole(&p.info, from, to, 0)
}

// contiguousFrom returns the first item after which nothing can be missing in
// the page, and the position before it.
func (p *Page[E]) contiguousFrom() (first int, start adapter.Position) {
	start = p.from
	if len(p.bad) > 0 {
		return len(p.items), p.end
	}
	for i := 1; i < len(p.items); i++ {
		was, is := p.items[i-1].Place(), p.items[i].Place()
		if !p.whole(was.Epoch, is.Epoch) {
			first, start = i, adapter.Position{Epoch: is.Epoch, Offset: is.Offset - 1}
		}
	}
	if n := len(p.items); n > 0 && !p.whole(p.items[n-1].Place().Epoch, p.end.Epoch) {
		return n, p.end
	}
	if first == 0 && len(p.items) > 0 {
		if is := p.items[0].Place(); !p.whole(p.from.Epoch, is.Epoch) {
			start = adapter.Position{Epoch: is.Epoch, Offset: is.Offset - 1}
		}
	}
	return first, start
}
