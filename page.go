package fanout

import (
	"errors"
	"sort"
	"unique"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

const (
	// replayMessages and replayBytes bound a page that is read for members. A
	// member that stops reading holds one page, so pages are small.
	replayMessages = 2048
	replayBytes    = 128 << 10
)

// errNoProgress means that a history announces more and gives nothing new.
var errNoProgress = errors.New("the history announces more, but gives nothing new")

// A page is a part of a room's history as it was read for members that come
// from behind. It is shared by them and never changed.
type page struct {
	since   adapter.Position // it was asked for what comes after this
	from    adapter.Position // entries are all that the history keeps after this
	end     adapter.Position // where the page ends
	last    bool             // the history ended there
	info    adapter.Page     // without frames: the state of the history
	entries []item.Entry     // without those that are volatile
	times   []int64          // when each was kept, by our own clock: see ticks
	bad     []badFrame       // frames that cannot be read, or are not there
}

// A badFrame stands for the messages of a frame that cannot be read, or of
// frames that should be in a page and are not.
type badFrame struct {
	before uint64 // offset before its first message
	at     adapter.Position
}

// missedAfter is how many messages were in it, of those after an offset. They
// are more than anybody can have said if absurd is set; then it is 0.
func (f *badFrame) missedAfter(offset uint64) (missed int, absurd bool) {
	return history.Count(f.at.Offset - min(max(f.before, offset), f.at.Offset))
}

// A part is what a member gets next from the history: what is missing, then
// messages. The messages are shared with others: read only.
type part struct {
	gap     roomlog.Gap
	entries []item.Entry
	end     adapter.Position // where the member is when it has read them
}

// newPage decodes what the backend has returned for since.
func (rs *roomState) newPage(since adapter.Position, read *adapter.Page) *page {
	a := history.Compare(read, since)
	p := &page{since: since, from: since, end: read.Head, last: !read.More}
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
	before := a.From
	for _, f := range read.Frames {
		b, sender := openKept(f), ""
		if b.bad != nil {
			rs.hub.malformed(rs.channel, b.bad)
			p.bad = append(p.bad, badFrame{before, f.At})
		} else if b.first-1 > before {
			p.bad = append(p.bad, badFrame{before, adapter.Position{Epoch: f.At.Epoch, Offset: b.first - 1}})
		}
		before = f.At.Offset
		if b.head.Count > 0 {
			sender = unique.Make(hubID(b.head.Hub)).Value()
		}
		var u unpacker
		b.unpackKept(&u, rs.hub, 0, sender)
		for u.read() {
			if e := u.entry(); !e.Volatile && e.At.Offset > a.From {
				p.entries = append(p.entries, e)
				p.times = append(p.times, b.kept)
			}
		}
	}
	if !read.More && before < read.Head.Offset {
		p.bad = append(p.bad, badFrame{before, read.Head})
	}
	return p
}

// covers reports whether the page says what comes next after a position.
func (p *page) covers(at adapter.Position) bool {
	return !at.Before(p.since) && (p.last || at.Before(p.end))
}

// next returns what comes after a position that the page covers, up to the next
// place where something is missing or may be. For a newcomer nothing is missing
// that was said before it came.
func (p *page) next(at adapter.Position, newcomer bool) part {
	a := history.Compare(&p.info, at)
	next := part{gap: roomlog.Gap{Missed: a.Missed, Unknown: a.Lost}, end: p.end}
	if at.IsZero() && !newcomer { // there was no history when it came: all of it is new
		missed, absurd := history.Count(a.From)
		next.gap = roomlog.Gap{Missed: missed, Unknown: absurd}
	}
	rest := p.entries[sort.Search(len(p.entries), func(i int) bool { return at.Before(p.entries[i].At) }):]
	bad := p.bad[sort.Search(len(p.bad), func(i int) bool { return at.Before(p.bad[i].at) }):]
	for len(bad) > 0 && (len(rest) == 0 || bad[0].at.Before(rest[0].At)) {
		missed, absurd := bad[0].missedAfter(a.From)
		next.gap.Missed += missed
		next.gap.Unknown = next.gap.Unknown || absurd
		bad = bad[1:]
	}
	epoch, counts := a.Epoch, !at.IsZero() && !newcomer
	if len(rest) > 0 {
		first := rest[0].At.Epoch
		next.gap.Unknown = next.gap.Unknown || counts && !a.Lost && !history.Whole(&p.info, epoch, first, 0)
		epoch = first
	}
	n := 0
	for n < len(rest) {
		e := rest[n].At
		if len(bad) > 0 && bad[0].at.Before(e) || !newcomer && !history.Whole(&p.info, epoch, e.Epoch, 0) {
			next.entries, next.end = rest[:n:n], rest[n-1].At
			return next
		}
		epoch = e.Epoch
		n++
	}
	next.entries = rest[:n:n]
	switch {
	case len(bad) > 0:
		next.end = rest[n-1].At
	case counts && !a.Lost && !history.Whole(&p.info, epoch, p.end.Epoch, 0):
		if n > 0 { // it is told of that with the next part
			next.end = rest[n-1].At
		} else {
			next.gap.Unknown = true
		}
	}
	return next
}

// solid returns the first of the entries from which on nothing can be missing
// among them, and the position before it.
func (p *page) solid() (first int, start adapter.Position) {
	start = p.from
	if len(p.bad) > 0 {
		return len(p.entries), p.end
	}
	for i := 1; i < len(p.entries); i++ {
		was, is := p.entries[i-1].At, p.entries[i].At
		if was.Epoch != is.Epoch && !history.Whole(&p.info, was.Epoch, is.Epoch, 0) {
			first, start = i, adapter.Position{Epoch: is.Epoch, Offset: is.Offset - 1}
		}
	}
	if n := len(p.entries); n > 0 && !history.Whole(&p.info, p.entries[n-1].At.Epoch, p.end.Epoch, 0) {
		return n, p.end
	}
	if first == 0 && len(p.entries) > 0 && !history.Whole(&p.info, p.from.Epoch, p.entries[0].At.Epoch, 0) {
		start = adapter.Position{Epoch: p.entries[0].At.Epoch, Offset: p.entries[0].At.Offset - 1}
	}
	return first, start
}

// A request is a member's wish for what comes after a position.
type request struct {
	at    adapter.Position
	begun bool // a reading that has begun since may serve it
	next  bool // the next reading begins at it

	done chan struct{} // closed when page or err is there
	page *page
	err  error
}

// requests are the members' wishes for a room's history, the oldest first. One
// reading at a time serves as many as it can, and the oldest after two readings
// at the latest. It has no lock of its own: roomState.mu guards it.
type requests struct {
	list    []*request
	reading bool // somebody serves them
}

func (q *requests) add(at adapter.Position) *request {
	r := &request{at: at, done: make(chan struct{})}
	q.list = append(q.list, r)
	return r
}

// drop forgets a request that nobody waits for any more.
func (q *requests) drop(r *request) {
	for i := range q.list {
		if q.list[i] == r {
			q.list = append(q.list[:i:i], q.list[i+1:]...)
			return
		}
	}
}

// begin says after which position to read next. It is not ok if nobody waits.
// Where whole is set the history is so short that it is read from its beginning.
func (q *requests) begin(whole bool) (since adapter.Position, ok bool) {
	if len(q.list) == 0 {
		return adapter.Position{}, false
	}
	oldest := q.list[0]
	since = oldest.at
	if !oldest.next { // a reading from a little earlier may serve it, too
		for _, r := range q.list {
			if r.at.Before(since) && r.at.Epoch == oldest.at.Epoch && r.at.Offset+replayMessages/2 > oldest.at.Offset {
				since = r.at
			}
		}
		if whole {
			since = adapter.Position{}
		}
	}
	oldest.next = true
	for _, r := range q.list {
		r.begun = true
	}
	return since, true
}

// deliver gives a page to those whom it serves.
func (q *requests) deliver(p *page) {
	q.settle(nil, func(r *request) bool {
		if !p.covers(r.at) || !r.begun && !r.at.Before(p.end) { // then it may be too old for r
			return false
		}
		r.page = p
		return true
	})
}

// fail gives all who wait an error.
func (q *requests) fail(err error) { q.settle(err, func(*request) bool { return true }) }

func (q *requests) settle(err error, served func(*request) bool) {
	left := q.list[:0:0]
	for _, r := range q.list {
		if served(r) {
			r.err = err
			close(r.done)
		} else {
			left = append(left, r)
		}
	}
	q.list = left
}
