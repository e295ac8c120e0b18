package sequence

import "github.com/fanoutgo/fanout/internal/wire"

// lineAt returns a line that begins with a frame.
func lineAt(h *wire.Header) line { return line{stream: h.Stream, floor: h.Seq, next: h.Seq} }

// has reports whether all numbers of a frame are accounted for in the line.
func (l *line) has(stream, seq, end uint64) bool {
	return l.stream == stream && l.floor <= seq && end <= l.next && !l.isOpen(stream, seq, end)
}

// reaches reports whether a frame belongs to the line, or comes after it.
func (l *line) reaches(h *wire.Header) bool { return l.stream == h.Stream && l.floor <= h.Seq }

// leave keeps the line that is followed as the other one, if it has anything.
func (s *publisher) leave() {
	if s.next > s.floor {
		old := s.line
		s.other = &old
	}
	s.proof = 0
}

// begin follows a stream from a number on, or from where the other line has it.
func (s *publisher) begin(number, from uint64) {
	other := s.other
	s.leave()
	if other != nil && other.stream == number {
		s.line = *other
	} else {
		s.line = line{stream: number, floor: from, next: from}
	}
}

// choose follows the line that a frame belongs to, in a room where positions
// show the order. It needs no evidence.
func (s *publisher) choose(h *wire.Header) {
	other := s.other
	switch {
	case other != nil && other.reaches(h) && other.stream == s.stream && other.floor == s.floor && other.next == h.Seq:
		s.line, s.other = *other, nil // the jump over suspiciousHole numbers was forged
	case other != nil && other.reaches(h) && other.next == h.Seq && s.next < h.Seq:
		*other, s.line = s.line, *other // what is between the lines may still come
	case s.reaches(h):
	case other != nil && other.reaches(h):
		*other, s.line = s.line, *other
	case h.Stream > s.stream:
		s.begin(h.Stream, 1)
	default:
		s.leave()
		s.line = lineAt(h)
	}
}

// isBehind reports whether the publisher was heard in the other line after the
// one that is followed.
func (s *publisher) isBehind() bool {
	o := s.other
	return o != nil && (o.stream > s.stream || o.stream == s.stream && s.next <= o.floor)
}

// jump continues at seq, which is not before the next number, and returns how
// many numbers lie between; 0 if that is absurd. With reported, these will be
// reported missing, and are accounted for.
func (s *publisher) jump(seq uint64, reported bool) (hole uint64, absurd bool) {
	if hole = seq - s.next; hole == 0 {
		return 0, false
	}
	if o := s.other; o != nil && o.stream == s.stream && s.next <= o.floor && o.next <= seq {
		hole -= o.next - o.floor // these are accounted for
		s.other = nil
	}
	absurd = hole >= MaxHole
	if hole >= suspiciousHole {
		s.leave()
		if absurd || !reported {
			s.floor, s.open = seq, nil
		}
	} else if !reported {
		s.leaveOpen(seq)
	}
	if absurd {
		return 0, true
	}
	return hole, false
}

// astray takes a frame that is not in the line that is followed: it is of a
// smaller stream, or from before the line begins. Its messages are out of
// order, so they are not delivered, and they are missing unless they are
// accounted for in the other line.
func (s *publisher) astray(h *wire.Header, v *Verdict) {
	end := h.Seq + uint64(h.Count)
	v.Skip = h.Count
	o := s.other
	if o == nil || !o.reaches(h) {
		o = new(lineAt(h))
		s.other, s.proof = o, 0
	}
	if end <= o.next {
		v.Repeated = h.Count
		return
	}
	if hole := h.Seq - min(h.Seq, o.next); hole < MaxHole {
		v.Missed = int(hole)
	} else {
		v.Unknown = true
		o.floor = h.Seq
	}
	v.Missed += int(end - max(h.Seq, o.next))
	o.next = end
	if o.stream == s.stream && s.floor <= o.next { // the two lines have met
		s.floor, s.next, s.other = o.floor, max(s.next, o.next), nil
		return
	}
	if s.speaks(h) {
		*o, s.line = s.line, *o
	}
}

// recall takes a frame all of whose numbers are accounted for. If they were
// reported missing because of a jump over suspiciousHole numbers, and now come
// one after the other from its beginning on, then the jump was forged: the
// frames after them are delivered, though they were reported missing.
func (s *publisher) recall(h *wire.Header, end uint64) {
	o := s.other
	if o == nil || o.stream != h.Stream || h.Seq != o.next || h.Stream != s.stream || end > s.next {
		return
	}
	o.next = end
	if s.speaks(h) {
		s.line, s.other = *o, nil
	}
}

// speaks counts a frame as evidence for the other line, and reports whether
// there is enough.
func (s *publisher) speaks(h *wire.Header) bool {
	if h.Resent {
		return false // it may be late
	}
	if s.proof++; s.proof < evidence {
		return false
	}
	s.proof = 0
	return true
}
