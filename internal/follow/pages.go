package follow

import (
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// Head notes the head of the history, which is read first after the room was
// subscribed. The log and the recent messages begin there.
func (f *Follower[B]) Head(p *adapter.Page) adapter.Position {
	f.state = CatchingUp
	f.pos, f.began, f.before = p.Head, p.Head, p.Before
	return p.Head
}

// Frame takes the next frame of a page.
func (f *Follower[B]) Frame(p *Page, b *Frame[B], now time.Time) (a Append) {
	f.gapBefore(&a, p, now)
	f.enterEpoch(&a, p, b.At.Epoch, now)
	if p.unplaced {
		p.unplaced, f.pos.Offset = false, max(b.First-1, f.pos.Offset)
	}
	f.skipTo(&a, b.First-1)
	before := f.pos.Offset
	a = f.follow(a, b)
	a.Recovered = f.pos.Offset - before
	return a
}

// PageEnd takes what a page says after its last frame. If there is no more to
// read, the log goes on at the head of the history.
func (f *Follower[B]) PageEnd(p *Page, now time.Time) (a Append) {
	f.gapBefore(&a, p, now)
	if p.page.More {
		return a
	}
	head := p.page.Head
	f.enterEpoch(&a, p, head.Epoch, now)
	switch {
	case head.Before(p.since):
		f.pos, f.began = f.goBack(head), adapter.Position{}
	case p.unplaced:
		f.pos = head
	default:
		f.skipTo(&a, head.Offset)
		f.pos = head
	}
	f.before = p.page.Before
	if f.state == Retrying {
		f.state = CatchingUp
	}
	if !a.Gap.IsZero() {
		a.restart(f.pos)
	}
	return a
}

// gapBefore reports what is missing between the log and a page, once for each
// page, and moves the position to where the page begins.
func (f *Follower[B]) gapBefore(a *Append, p *Page, now time.Time) {
	if p.begun {
		return
	}
	p.begun, p.since = true, f.pos
	after := history.Compare(p.page, f.pos)
	if f.pos.IsZero() { // there was no history when the hub came: all of it is new
		after.Miss(after.From)
	}
	if after.Lost {
		f.numbers.BeginRun(now)
		f.pos.Epoch = after.Epoch
	}
	f.pos.Offset, p.unplaced = after.From, after.Unplaced
	f.miss(a, after.Missed, after.Lost)
}

// enterEpoch continues in an epoch of a page, whose offsets count from here on.
// If messages may have been lost at the change of epochs although they had been
// acknowledged, the numbers of their publishers show them to be missing from
// here on.
func (f *Follower[B]) enterEpoch(a *Append, p *Page, epoch uint64, now time.Time) {
	if f.pos.Epoch == epoch {
		return
	}
	witnessed := f.witnessed
	if f.link.unclean() {
		witnessed = 0
	}
	if !history.Whole(p.page, f.pos.Epoch, epoch, witnessed) {
		f.numbers.BeginRun(now)
		a.Gap.Unknown = true
	}
	f.pos.Epoch = epoch
}

// skipTo continues at a later offset: the history no longer has the messages
// before it. An earlier offset has no effect.
func (f *Follower[B]) skipTo(a *Append, offset uint64) {
	if offset <= f.pos.Offset {
		return
	}
	missed, absurd := history.Count(offset - f.pos.Offset)
	f.pos.Offset = offset
	f.miss(a, missed, absurd)
}

// miss adds messages that are missing by their positions. It is seen later who
// published them, and they are not counted again then.
func (f *Follower[B]) miss(a *Append, missed int, unknown bool) {
	if missed > 0 {
		f.numbers.Trim()
		f.trimmed += uint64(missed)
	}
	a.Gap.Missed += missed
	a.Gap.Unknown = a.Gap.Unknown || unknown
}

// goBack returns where to continue in a history whose head is before the
// position of the log: before the first held frame that is in that history, or
// at the head.
func (f *Follower[B]) goBack(head adapter.Position) adapter.Position {
	for i := range f.pending {
		b := &f.pending[i]
		if !b.At.IsZero() && b.At.Epoch == head.Epoch && b.First <= head.Offset {
			return b.before()
		}
	}
	return head
}

// Drain returns held frames that go into the log, when there is no more to
// read. Frames that do not fit stay held. Later frames that fit do not wait for
// them, but those without a position do, to keep their place. If there are more
// than drainFrames frames, more is set, and the caller calls Drain again.
// Otherwise it calls Drained.
func (f *Follower[B]) Drain(now time.Time) (held []Held[B], more bool) {
	if f.lost && f.next != overflown { // the gap is before the frames that have come since
		f.lost = false
		held = append(held, Held[B]{Append: Append{Gap: roomlog.Gap{Unknown: true}}})
	}
	at, stay, old := 0, 0, 0 // the first stay frames do not fit, old of them are old
	taken := 0
	for ; at < len(f.pending) && taken < drainFrames; at++ {
		b := &f.pending[at]
		if stay == 0 || !b.At.IsZero() {
			a, placed := f.place(b, now, false)
			if !placed && f.impatient && at < f.old {
				a, placed = f.unplaced(b, now), true
			}
			if placed {
				held = append(held, Held[B]{a, *b})
				f.held -= b.Size
				taken++
				continue
			}
		}
		if at < f.old {
			old++
		}
		f.pending[stay] = *b
		stay++
	}
	f.old = old + max(0, f.old-at)
	f.release(stay, at)
	return held, taken == drainFrames && len(f.pending) > 0 && f.next == nothing
}

// release forgets the held frames from stay up to at.
func (f *Follower[B]) release(stay, at int) {
	if stay == 0 {
		clear(f.pending[:at])
		f.pending = f.pending[at:]
		return
	}
	n := stay + copy(f.pending[stay:], f.pending[at:])
	clear(f.pending[n:])
	f.pending = f.pending[:n]
}

// Drained says how to continue when Drain has returned all frames that fit.
func (f *Follower[B]) Drained(now time.Time) (step Step, wait time.Duration) {
	f.impatient = false
	switch {
	case f.next != nothing:
	case len(f.pending) == 0:
		f.pending, f.held = nil, 0
		f.state, f.link = Live, f.link.caughtUp()
		if f.doubts != nil {
			f.doubts.progress()
		}
		return Done, 0
	case f.old == 0: // what is missing may have been kept since the reading began
		wait = f.pause(now)
	default:
		if wait, f.impatient = f.doubt().noProgress(now); f.impatient {
			return More, 0
		}
	}
	if wait > 0 {
		f.state = Stalled
	}
	return Again, wait
}
