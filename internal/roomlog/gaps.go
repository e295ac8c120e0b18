package roomlog

import "math"

// maxEarlier bounds the gaps with times that a log remembers for cursors that
// lag. There is at most one for each publisher and interruption.
const maxEarlier = 1024

// An earlier holds the gaps with times that were appended while cursors lagged.
// Those that have fallen out of the window are told what they missed as the
// difference of two positions, in which gaps are that do not concern them.
type earlier struct {
	gaps []placed // in the order of their positions
	// Of gaps that were dropped: the last position, and the first From.
	dropped uint64
	from    uint32
}

// A placed gap ends at a position. Its Missed is part of that.
type placed struct {
	pos uint64
	Gap
}

// remember notes a gap with times that ends at a position.
func (l *Log[T, O]) remember(pos uint64, g Gap) {
	l.mu.AssertHeld()
	if l.earlier == nil {
		l.earlier = &earlier{from: math.MaxUint32}
	}
	e := l.earlier
	if len(e.gaps) == maxEarlier {
		half := e.gaps[:maxEarlier/2]
		for i := range half {
			e.from = min(e.from, half[i].From)
		}
		e.dropped = half[len(half)-1].pos
		e.gaps = append(e.gaps[:0], e.gaps[len(half):]...)
	}
	e.gaps = append(e.gaps, placed{pos, g})
}

// between says what a cursor that was opened at a time misses if it goes from
// one link to a later one.
func (l *Log[T, O]) between(from, to *link[T], opened uint32) Gap {
	l.mu.AssertHeld()
	missed, unknown := to.pos-from.pos, to.unknown != from.unknown
	if e := l.earlier; e != nil {
		if from.pos < e.dropped && opened > e.from {
			// What of this concerns the cursor has been forgotten.
			missed, unknown = to.pos-min(to.pos, e.dropped), true
		}
		for i := range e.gaps {
			g := &e.gaps[i]
			if from.pos < g.pos && g.pos <= to.pos {
				mine := g.For(opened)
				missed -= uint64(g.Missed - mine.Missed)
				unknown = unknown || mine.Unknown
			}
		}
	}
	return Gap{Missed: int(min(missed, math.MaxInt)), Unknown: unknown}
}
