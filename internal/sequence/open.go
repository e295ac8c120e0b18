package sequence

import "slices"

// maxOpen bounds the runs of open numbers of a hub. When there are more, the
// one that was found first counts as accounted for.
const maxOpen = 16

// A span is a run of numbers, without the end.
type span struct{ from, end uint64 }

// open are the numbers of a line that are not accounted for. They come from
// holes in a room with a history, which are not reported: it is assumed that
// the publisher could not send these messages.
type open []span

// add adds a span, which may be empty.
func (o *open) add(more span) {
	if more.from >= more.end {
		return
	}
	if len(*o) == maxOpen {
		*o = slices.Delete(*o, 0, 1)
	}
	*o = append(*o, more)
}

// find returns the index of the span that has all numbers of a frame, or -1.
func (o open) find(seq, end uint64) int {
	return slices.IndexFunc(o, func(s span) bool { return s.from <= seq && seq < end && end <= s.end })
}

// leaveOpen keeps the numbers up to seq, which are about to be passed over, as
// open.
func (l *line) leaveOpen(seq uint64) {
	if l.open == nil {
		l.open = new(open)
	}
	l.open.add(span{l.next, seq})
}

// isOpen reports whether all numbers of a frame are open.
func (l *line) isOpen(stream, seq, end uint64) bool {
	return l.open != nil && stream == l.stream && l.open.find(seq, end) >= 0
}

// fill accounts for a frame whose numbers are open. It returns how many open
// numbers are before the frame in the same hole, or 0 if reported is false:
// then they stay open.
func (l *line) fill(seq, end uint64, reported bool) (before uint64) {
	i := l.open.find(seq, end)
	was := (*l.open)[i]
	*l.open = slices.Delete(*l.open, i, i+1)
	if reported {
		before = seq - was.from
	} else {
		l.open.add(span{was.from, seq})
	}
	l.open.add(span{end, was.end})
	if len(*l.open) == 0 {
		l.open = nil
	}
	return before
}
