package sequence

import (
	"slices"

	"github.com/fanoutgo/fanout/internal/wire"
)

// taken are the numbers of messages that a server took after it had been
// replaced. No history has these messages, and their publisher may send them
// again, so they are not accounted for yet. If they come they are delivered. If
// a later message of the publisher comes first, they are missing before that.
type taken struct {
	stream uint64
	run    uint32 // Tracker.run when the last of them came
	spans  []span // ascending, and not adjacent
	told   uint64 // those before this number have been reported missing
}

// maxTaken bounds the spans. Numbers beyond that are not remembered, and remain
// Unknown.
const maxTaken = 16

// add adds numbers.
func (t *taken) add(more span) {
	at := 0
	for ; at < len(t.spans) && t.spans[at].end < more.from; at++ {
	}
	end := at // of the spans that more touches
	for ; end < len(t.spans) && t.spans[end].from <= more.end; end++ {
		more.from, more.end = min(more.from, t.spans[end].from), max(more.end, t.spans[end].end)
	}
	if at < end || len(t.spans) < maxTaken {
		t.spans = slices.Replace(t.spans, at, end, more)
	}
}

// untold returns how many numbers of s have not been reported missing.
func (t *taken) untold(s span) uint64 {
	return s.end - min(s.end, max(s.from, t.told))
}

// take notes the numbers of a frame that are not before the next one. It
// returns how many of all taken numbers are to be reported missing now, because
// a later one was taken: a publisher sends one frame at a time, so it does not
// send the earlier ones again.
func (s *publisher) take(h *wire.Header, run uint32) (missing uint64) {
	if h.Seq > s.next && h.Seq-s.next >= suspiciousHole {
		return 0 // it may be forged
	}
	if s.taken == nil || s.taken.stream < h.Stream {
		s.taken = &taken{stream: h.Stream}
	}
	t := s.taken
	if t.stream != h.Stream {
		return 0
	}
	more, known := span{max(h.Seq, s.next), h.Seq + uint64(h.Count)}, false
	for _, a := range t.spans {
		missing += t.untold(span{a.from, max(a.from, min(a.end, h.Seq))})
		known = known || a.from <= more.from && more.end <= a.end
	}
	if !known && more.from < t.told {
		missing += min(more.end, t.told) - more.from
	}
	t.run, t.told = run, max(t.told, h.Seq)
	t.add(more)
	return missing
}

// overtake is called when a frame comes. It accounts for the taken numbers
// before the frame, and returns how many they are: their messages are missing.
// The next number is then behind them. The numbers between them are a hole, and
// either reported, as in jump, or left open. With earlier, the taken numbers
// are a part of the hole.
func (s *publisher) overtake(h *wire.Header, reported, earlier bool, trimmed *uint64) (missing int, hole uint64) {
	t, lost := s.taken, uint64(0)
	if h.Stream < t.stream {
		return 0, 0
	}
	rest := t.spans[:0]
	for _, a := range t.spans {
		switch from, until := max(a.from, s.next), min(a.end, h.Seq); {
		case h.Stream > t.stream:
			lost += t.untold(a)
			continue
		case from > s.next && from-s.next >= suspiciousHole:
			continue // it was noted when another line was followed
		case from < until:
			if reported {
				hole += from - s.next
			} else {
				s.leaveOpen(from)
			}
			lost += t.untold(span{from, until})
			s.next = until
		}
		if a.from = max(a.from, h.Seq+uint64(h.Count)); a.from < a.end {
			rest = append(rest, a)
		}
	}
	if t.spans = rest; len(rest) == 0 {
		s.taken = nil
	}
	if earlier {
		return 0, hole + lost
	}
	if s.trimmed {
		lost -= take(trimmed, lost)
	}
	return int(lost), hole
}
