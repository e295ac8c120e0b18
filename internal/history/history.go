// Package history compares positions with what a backend says of a channel's
// history. It decides what is missing after a position, whether the history has
// gone through it, and whether the backend's answer makes sense at all.
//
//	Before: epoch 1 up to 40   epoch 7 up to 55      Head: epoch 9, offset 70
//	        ───────────────────┬──────────────────────┬──────────────▶
//	        1               40 │ 41                55 │ 56        70
//	                           └ 41 to 48 of epoch 1 were lost: a position
//	                             there is beyond what the history has
//
// Everything here comes from outside: numbers are compared before they are
// subtracted, and impossible values are not believed.
package history

import (
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// What a backend may give; see [adapter.Historian].
const (
	MaxEpoch  = 1<<44 - 1
	MaxOffset = 1<<53 - 1

	// MaxAhead is how far an epoch may be ahead of the hub's clock.
	MaxAhead = 366 * 24 * time.Hour
	// written is when this was written: a clock that is before it is wrong.
	written = 1_767_225_600_000 // 2026-01-01, in ms since 1970
)

// BelievedEpoch reports whether a history can have begun an epoch by now, in ms
// since 1970.
func BelievedEpoch(epoch uint64, now int64) bool {
	return epoch > 0 && epoch <= MaxEpoch && epoch <= uint64(max(now, written)+MaxAhead.Milliseconds())
}

// BelievedOffset reports whether a message can have an offset.
func BelievedOffset(offset uint64) bool { return offset > 0 && offset <= MaxOffset }

// Count returns how many messages lie between two offsets that are n apart. If
// n is absurd, no publisher can have sent that many, and the count is 0.
func Count(n uint64) (messages int, absurd bool) {
	if n >= sequence.MaxHole {
		return 0, true
	}
	return int(n), false
}

// Check says what is wrong with a page that contradicts itself, or its query:
// such a history must not be followed. The error wraps adapter.ErrBrokenHistory
// and adapter.ErrRefused.
func Check(p *adapter.Page, since adapter.Position, believed func(epoch uint64) bool) error {
	switch head := p.Head; {
	case head.IsZero() && len(p.Frames) == 0:
		return nil // there is no history
	case !believed(head.Epoch), head.Offset > MaxOffset:
		return broken("it is at %v", head)
	}
	for _, past := range p.Before {
		if past.Epoch >= p.Head.Epoch || past.Last > MaxOffset {
			return broken("epoch %d up to %d is before %v", past.Epoch, past.Last, p.Head)
		}
	}
	at := since
	for _, f := range p.Frames {
		if !believed(f.At.Epoch) || !BelievedOffset(f.At.Offset) || !at.Before(f.At) || at != since && f.At.Offset <= at.Offset ||
			f.At.Epoch > p.Head.Epoch || f.At.Offset > p.Head.Offset {
			return broken("%v comes after %v, and it is at %v", f.At, at, p.Head)
		}
		at = f.At
	}
	return nil
}

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %w: "+format, append([]any{adapter.ErrRefused, adapter.ErrBrokenHistory}, args...)...)
}

// Progresses reports whether the frames of a page continue from a position, and
// there are some if more is announced.
func Progresses(p *adapter.Page, since adapter.Position) bool {
	if p.More && len(p.Frames) == 0 {
		return false
	}
	for i := range p.Frames {
		if !since.Before(p.Frames[i].At) {
			return false
		}
		since = p.Frames[i].At
	}
	return true
}

// After is what comes after a position in a history.
type After struct {
	Epoch  uint64 // of the position, or of what follows if the history was not there
	From   uint64 // what is kept begins after this offset; see Unplaced
	Missed int    // messages before that which are not kept
	Lost   bool   // the history is not what it was when the position was given
	// Unplaced means that it is not known up to where both agreed: what was read
	// is of later epochs, and what is kept before that may be older.
	Unplaced bool
}

// Compare compares a position with the history of a page.
func Compare(p *adapter.Page, since adapter.Position) After {
	oldest := min(max(p.First, 1)-1, p.Head.Offset)
	last, ok := Last(p, since.Epoch)
	if since.IsZero() || !ok {
		a := After{Epoch: p.Head.Epoch, From: oldest, Lost: !since.IsZero()}
		if len(p.Frames) > 0 {
			a.Epoch = p.Frames[0].At.Epoch
		}
		if a.Lost && len(p.Before) == 0 && since.Epoch < p.Head.Epoch {
			a.Miss(oldest) // it has begun anew since: all of it is new
		} else {
			a.Unplaced = a.Lost
		}
		return a
	}
	a := After{Epoch: since.Epoch, From: since.Offset}
	if since.Offset > last {
		a.From, a.Lost = last, true // it went back
	}
	if oldest > a.From {
		a.Miss(oldest - a.From)
		a.From = oldest
	}
	return a
}

// Miss sets how many messages are missing.
func (a *After) Miss(n uint64) {
	missed, absurd := Count(n)
	a.Missed, a.Lost = missed, a.Lost || absurd
}

// Last returns the last offset that the history has of an epoch. It is not ok
// if the history has not been there.
func Last(p *adapter.Page, epoch uint64) (last uint64, ok bool) {
	if epoch == p.Head.Epoch {
		return p.Head.Offset, true
	}
	return LastOf(p.Before, epoch)
}

// LastOf returns the last offset of one of several past epochs.
func LastOf(before []adapter.PastEpoch, epoch uint64) (last uint64, ok bool) {
	for _, past := range before {
		if past.Epoch == epoch {
			return past.Last, true
		}
	}
	return 0, false
}

// Has reports whether the history has gone through a position.
func Has(p *adapter.Page, at adapter.Position) bool {
	last, ok := Last(p, at.Epoch)
	return ok && at.Offset <= last
}

// Whole reports whether nothing was lost between one epoch and another, as far
// as the backend knows, or the hub, which has witnessed one of them.
func Whole(p *adapter.Page, from, to, witnessed uint64) bool {
	return !slices.ContainsFunc(p.Before, func(past adapter.PastEpoch) bool {
		return from <= past.Epoch && past.Epoch < to && !past.Whole && past.Epoch != witnessed
	})
}
