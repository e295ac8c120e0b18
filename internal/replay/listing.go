package replay

import (
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// A Listing gathers the pages of what was kept after a position.
type Listing[E Item] struct {
	since  adapter.Position
	limit  int // 0 or less: none
	at     adapter.Position
	begun  bool
	items  []E
	missed int
	absurd bool         // more than missed are missing, or may be
	info   adapter.Page // without frames: the state of the history
}

// NewListing begins a listing of up to limit messages after since. A limit of 0
// or less is none.
func NewListing[E Item](since adapter.Position, limit int) *Listing[E] {
	return &Listing[E]{since: since, at: since, limit: limit}
}

// Next returns the position after which to read, and how many more messages are
// wanted; 0 or less means that there is no limit.
func (l *Listing[E]) Next() (at adapter.Position, limit int) { return l.at, l.limit - len(l.items) }

// Ahead reports whether the position is ahead of a history that is at head.
func (l *Listing[E]) Ahead(head adapter.Position) bool {
	return !l.begun && l.since.Epoch == head.Epoch && l.since.Offset > head.Offset
}

// Add adds the next page, and reports whether it was the last.
func (l *Listing[E]) Add(p *Page[E]) (done bool) {
	if !l.begun || p.from != l.at { // the messages between have been trimmed meanwhile, or the history is another one
		l.items, l.missed, l.absurd, l.info = nil, 0, false, p.info
	} else { // the first page says what was trimmed before, the last where it ends
		l.info.Head, l.info.Before = p.info.Head, p.info.Before
	}
	l.begun = true
	l.items = append(l.items, p.items...)
	for i := range p.bad {
		n, beyond := p.bad[i].missedAfter(0)
		l.missed, l.absurd = l.missed+n, l.absurd || beyond
	}
	l.at = p.end
	if !p.last && (l.limit <= 0 || len(l.items) < l.limit) {
		return false
	}
	if !p.last {
		l.info.Head = p.end
	}
	return true
}

// Items are the messages.
func (l *Listing[E]) Items() []E {
	if l.limit > 0 && len(l.items) > l.limit {
		return l.items[:l.limit]
	}
	return l.items
}

// Gap returns what is missing among the messages or before them.
func (l *Listing[E]) Gap() roomlog.Gap {
	newcomer := l.since.IsZero() // for a newcomer nothing is missing before the first message
	if newcomer && l.missed == 0 && !l.absurd {
		return roomlog.Gap{}
	}
	a := history.Compare(&l.info, l.since)
	doubt := l.absurd || !newcomer && (a.Lost || !history.Whole(&l.info, a.Epoch, l.info.Head.Epoch, 0))
	return roomlog.Gap{Missed: l.missed + a.Missed, Unknown: doubt}
}
