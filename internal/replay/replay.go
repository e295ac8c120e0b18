package replay

import (
	"math"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// maxWaits bounds how often a member waits for a log that is behind it, or
// ahead of a history that was lost. Each time the log reads all that the
// history has, so once is enough, unless the history goes back meanwhile.
const maxWaits = 3

// A Replay is a member on its way from a place in the room's history to the
// log: it resumes, or it fell out of the window. It holds no more than one
// part, so a member that stops reading costs a page at most.
type Replay[E Item] struct {
	at  adapter.Position // where the member is when it has read the part
	gap roomlog.Gap      // before items
	// items are shared with others: read only.
	items []E

	base    adapter.Position // where the log was when the cursor was opened; the cursor passes over what comes after it
	counted int              // messages after base that it has received, or was told are missing
	page    *Page[E]         // that was read for it
	head    adapter.Position // the head of the history, if the member is ahead of it

	met      bool  // the log goes on after items
	newcomer bool  // it asked for all that is kept, so nothing is missing before base
	again    bool  // it was ahead of the history, which was read again
	retried  bool  // the history could not be read, and was tried again
	waits    uint8 // times that it waited for the log
}

// Resume returns the replay of a member that resumes at a position. The zero
// position asks for all that is kept. Begin is to be called when it has its
// first part.
func Resume[E Item](since adapter.Position) *Replay[E] {
	return &Replay[E]{at: since, newcomer: since.IsZero()}
}

// Refill returns the replay of a member that fell out of the window, and has
// come to a position.
func Refill[E Item](at adapter.Position) *Replay[E] { return &Replay[E]{at: at, base: at} }

// Begin notes the position of the log, where the member's cursor is opened.
func (r *Replay[E]) Begin(pos adapter.Position) { r.base, r.counted = pos, 0 }

// At returns where the member is when it has read the part.
func (r *Replay[E]) At() adapter.Position { return r.at }

// Head returns the head of the history, if the replay is ahead of it.
func (r *Replay[E]) Head() adapter.Position { return r.head }

// Met reports whether the log continues after the part.
func (r *Replay[E]) Met() bool { return r.met }

// Empty reports whether the part has been read.
func (r *Replay[E]) Empty() bool { return r.gap.IsZero() && len(r.items) == 0 }

// Gap is what is missing before the messages of the part.
func (r *Replay[E]) Gap() roomlog.Gap { return r.gap }

// TakeGap returns the gap, and removes it.
func (r *Replay[E]) TakeGap() roomlog.Gap {
	gap := r.gap
	r.gap = roomlog.Gap{}
	return gap
}

// Items are the messages of the part that have not been read.
func (r *Replay[E]) Items() []E { return r.items }

// Advance says that the first n of them have been read.
func (r *Replay[E]) Advance(n int) {
	if r.items = r.items[n:]; len(r.items) == 0 {
		r.items = nil
	}
}

// isNewcomer reports whether nothing that was trimmed before the next message
// is missing for the member.
func (r *Replay[E]) isNewcomer() bool {
	return r.newcomer && (r.base.IsZero() || r.at.Before(r.base))
}

// Deliver gives the replay a page that was read for it.
func (r *Replay[E]) Deliver(p *Page[E]) { r.page = p }

// Meet notes that the member's cursor is at the end of the log. What the cursor
// passed over, and the history did not have, is missing: messages without a
// position, and gaps.
func (r *Replay[E]) Meet(passed roomlog.Gap) {
	r.gap.Missed += min(max(0, passed.Missed-r.counted), math.MaxInt-r.gap.Missed)
	r.gap.Unknown = r.gap.Unknown || passed.Unknown
	r.met = true
}

// Abandon ends a replay whose history cannot be read: the member continues with
// the log, which is at pos, and the rest is a gap. It is called before the
// cursor is moved to the end of the log, and Meet after that. If inWindow is
// true neither is needed, because all that is missing is still in the window.
func (r *Replay[E]) Abandon(pos adapter.Position) (inWindow bool) {
	if r.at == r.base && r.counted == 0 {
		return true
	}
	r.gap, r.items = roomlog.Gap{}, nil
	if r.at.Before(r.base) && !r.newcomer {
		if r.gap.Unknown = r.at.Epoch != r.base.Epoch; !r.gap.Unknown {
			r.gap.Missed = int(r.base.Offset - r.at.Offset)
		}
	} else if r.at.Before(r.base) {
		r.gap.Unknown = true
	}
	r.at = pos
	return false
}

// give makes p the part of a replay.
func (r *Replay[E]) give(p Part[E]) {
	r.counted += len(p.items) - after(p.items, r.base)
	if gone := p.gap.Missed; !r.at.Before(r.base) {
		r.counted += gone
	} else if beyond := r.at.Offset + uint64(gone); beyond > r.base.Offset {
		r.counted += min(gone, int(beyond-r.base.Offset))
	}
	r.gap, r.items, r.at = p.gap, p.items, p.end
}

// A Verdict is the result of Assemble.
type Verdict uint8

const (
	// Complete: the replay has a part, or has met the log.
	Complete Verdict = iota
	// NeedsReading: the history has to be read first.
	NeedsReading
	// LogBehind: the log has to catch up first.
	LogBehind
	// AheadOfHistory: the position is of a message that nobody has published,
	// and the history was read to make sure. See Head.
	AheadOfHistory
	// Unreadable: the history could not be read, and was tried again.
	Unreadable
)

// A Log says where the log of the room is in the history.
type Log struct {
	At    adapter.Position // of its last message
	Known bool             // else At is not known
	// Blind is set if the history between the log and the next frame could not be
	// read, and Refused if it is not being read now either.
	Blind, Refused bool
}

// Assemble gives a replay its next part, or says what is needed for it.
func (s *Store[E]) Assemble(r *Replay[E], log Log, keep adapter.Retention, now int64) Verdict {
	switch {
	case !log.Known:
		return LogBehind
	case log.Blind: // what is missing is in the history, which it may be possible to read by now
		if log.Refused && r.retried {
			return Unreadable
		}
		r.retried = true
		return LogBehind
	}
	if p, ok := s.next(r.at, log.At, r.isNewcomer(), keep, now); ok {
		r.page = nil
		if r.met = p.end == log.At; !r.met {
			s.wideAt = now // others may follow
		}
		r.give(p)
		return Complete
	}
	p := r.page
	r.page = nil
	if p == nil || !p.covers(r.at) {
		if p = s.page(r.at, log.At, keep, now); p == nil {
			return NeedsReading
		}
	}
	if p.info.Head.Before(r.at) {
		if !r.again { // it may have been published after the reading had begun
			r.again = true
			return NeedsReading
		}
		if p.info.Head.Epoch == r.at.Epoch {
			r.head = p.info.Head
			return AheadOfHistory
		}
	} else if log.At.Before(r.at) && history.Has(&p.info, r.at) && r.waits < maxWaits {
		// This hub lags behind the hub that gave out the position. What is missing
		// here up to that position is not missing for the member.
		r.waits++
		return LogBehind
	}
	return r.takePage(p, log.At)
}

// takePage gives the replay the messages of a page, up to the position of the
// log.
func (r *Replay[E]) takePage(p *Page[E], pos adapter.Position) Verdict {
	next := p.next(r.at, r.isNewcomer())
	n := after(next.items, pos)
	if n < len(next.items) || !next.end.Before(pos) {
		next.items, next.end, r.met = next.items[:n:n], pos, true
		if n == 0 { // messages that are missing after pos are still on their way to the log
			next.gap.Missed = min(next.gap.Missed, int(min(pos.Offset-min(r.at.Offset, pos.Offset), math.MaxInt)))
		}
	}
	if !r.met && next.end == r.at && len(next.items) == 0 && next.gap.IsZero() {
		// The history ends before the log: it was lost, and the log has not
		// noticed yet, because it is interrupted.
		if r.waits < maxWaits {
			r.waits++
			return LogBehind
		}
		next.gap, next.end, r.met = roomlog.Gap{Unknown: true}, pos, true
	}
	r.give(next)
	return Complete
}
