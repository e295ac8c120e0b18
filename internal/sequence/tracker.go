package sequence

import (
	"fmt"
	"math"
	"time"
	"unique"

	"github.com/fanoutgo/fanout/internal/wire"
)

const (
	// maxPublishers bounds the publishers that are remembered; the half that
	// has not been heard for longest is forgotten when there are more.
	maxPublishers = 2048

	// MaxHole is the size from which a hole is not believed, and reported as a gap
	// of unknown size: at a million messages a second it takes more than an hour
	// to make one. The sum of a few smaller holes fits an int.
	MaxHole = min(1<<32, math.MaxInt/4)

	// suspiciousHole is the size from which the numbers before a hole are
	// remembered, because the jump may be forged.
	suspiciousHole = 1 << 20

	// evidence is the number of frames in a row that must continue the numbers
	// from before a suspicious jump until they are believed and the jump is
	// not.
	evidence = 4

	// clockSkew is the difference between hubs' clocks that is tolerated. With
	// a larger one, a hub's first message after an interruption may be reported
	// missing, or may be delivered out of order.
	clockSkew = 250 * time.Millisecond
)

// stranger represents all publishers that are not hubs.
const stranger = 0

// A Tracker knows the publishers of one channel. The zero Tracker knows none.
type Tracker struct {
	publishers []publisher
	last       int32 // index of the publisher that was heard last

	// run counts the times without interruption, from 1. Messages of a
	// publisher that was not heard in this run may be missing from before it.
	run   uint32
	since int64 // when the run began, in ms since 1970; zero in the first
	// heard is the hub whose frame was the first to be delivered in this run.
	// others is set once a frame of a second hub was delivered.
	heard   uint64
	frames  uint32 // counts frames, for publisher.age
	others  bool
	started bool
}

// A publisher is what is known of one publishing hub.
type publisher struct {
	hub uint64
	line
	other   *line                 // see the package comment; nil: there is none
	id      unique.Handle[string] // of the hub, which is known in many rooms
	run     uint32                // Tracker.run when it was last heard
	age     uint32                // Tracker.frames when it was last heard
	taken   *taken                // nil: there are none
	trimmed bool                  // some of its messages may have been trimmed: see Trim
	proof   uint8                 // frames in a row that speak for the other line
}

// A line is a run of numbers that are accounted for: delivered, or reported
// missing. Those that are open are not.
type line struct {
	stream, floor, next uint64
	open                *open // nil: there are none
}

// A Verdict says what to do with a frame.
type Verdict struct {
	// Earlier messages are missing from before this run. They concern only the
	// members that were there in the run From. Members that came after that,
	// and before this run, may have missed some of them.
	Earlier int
	From    uint32
	// Missed messages are missing as well, for everybody. Unknown: there may be
	// more than that.
	Missed  int
	Unknown bool
	// Skip is the number of the frame's first messages that must not be
	// delivered: Repeated of them came before, and the others are among the
	// missing.
	Skip, Repeated int
	Sender         string // the ID of the publishing hub
}

// Lost is the number of messages that are missing.
func (v *Verdict) Lost() int { return v.Earlier + v.Missed }

// BeginRun says that the channel has been subscribed, for the first time or
// again.
func (t *Tracker) BeginRun(now time.Time) {
	t.run++
	if t.run > 1 {
		t.since = now.UnixMilli() // before the first run no member was here to see an order
	}
	t.heard, t.others, t.started = 0, false, false
}

// Run returns the number of the run, from 1; 0 before the first.
func (t *Tracker) Run() uint32 { return t.run }

// Heard reports whether any hub was ever heard.
func (t *Tracker) Heard() bool { return t.frames > 0 }

// Accept takes the header of a frame in the order in which it arrived.
func (t *Tracker) Accept(h *wire.Header) Verdict {
	none := uint64(0)
	return t.AcceptUnkept(h, &none)
}

// AcceptUnkept is Accept for a frame without a position, in a room with a
// history; for trimmed see AcceptNext.
func (t *Tracker) AcceptUnkept(h *wire.Header, trimmed *uint64) (v Verdict) {
	s, known := t.lookUp(h)
	v.Sender = s.id.Value()
	from, inRun := s.run, known && s.run == t.run
	if h.Stream > s.stream {
		s.begin(h.Stream, 1)
	}
	if h.Stream < s.stream || h.Seq < s.floor {
		s.astray(h, &v)
		return v
	}
	s.run = t.run
	end := h.Seq + uint64(h.Count)
	hole := uint64(0)
	if s.taken != nil {
		v.Missed, hole = s.overtake(h, true, !inRun && s.taken.run != t.run, trimmed)
	}
	if s.isOpen(h.Stream, h.Seq, end) {
		s.fill(h.Seq, end, false)
		s.proof = 0
		t.note(h.Hub)
		return v
	}
	if end <= s.next || s.other != nil && s.other.has(h.Stream, h.Seq, end) {
		v.Skip, v.Repeated = h.Count, h.Count
		s.recall(h, end)
		return v
	}
	if h.Seq < s.next {
		v.Repeated = int(s.next - h.Seq)
		v.Skip = v.Repeated
	} else {
		more, absurd := s.jump(h.Seq, true)
		if hole += more; hole >= MaxHole {
			hole, absurd = 0, true
		}
		v.Unknown = absurd
		if s.trimmed {
			hole -= take(trimmed, hole)
		}
	}
	s.next, s.proof = end, 0
	if known && !inRun {
		v.Earlier, v.From = int(hole), from
	} else {
		v.Missed += int(hole)
	}
	if !inRun && t.heardOther(h.Hub) && t.late(h) {
		// Other hubs may have delivered it before what this hub has delivered in this
		// run.
		v.Missed += h.Count - v.Skip
		v.Skip = h.Count
		return v
	}
	t.note(h.Hub)
	return v
}

// AcceptStranger takes note of a message that has no number.
func (t *Tracker) AcceptStranger() { t.note(stranger) }

// AcceptNext is Accept for a frame that is the next one in the history of the
// room. There, positions show the order and what is missing. Numbers show which
// messages came before at another position and, for the first frame of each hub
// in a run, what a server has lost. (Within a run a hole is a message that
// could not be sent, as its publisher knows. If it comes after all, it is
// delivered where it comes.)
//
// The first passed messages of the frame have positions that the log has
// passed, so they will not be delivered. Those that were not delivered before
// either are missing. The trimmed parameter is the number of messages that have
// been reported missing by their positions; AcceptNext subtracts the missing
// messages that are among them.
func (t *Tracker) AcceptNext(h *wire.Header, passed int, trimmed *uint64) Verdict {
	v, s := t.acceptKept(h, passed, trimmed)
	if passed < h.Count { // all messages that were lost or trimmed come before it
		s.run, s.trimmed = t.run, false
	}
	return v
}

// AcceptBeside is AcceptNext for a frame that is delivered and has no place in
// the history. Messages that were trimmed may have numbers after it.
func (t *Tracker) AcceptBeside(h *wire.Header, trimmed *uint64) Verdict {
	v, s := t.acceptKept(h, 0, trimmed)
	s.run = t.run
	return v
}

// AcceptLate is AcceptNext for a frame that comes after its place in the order
// is past, and is not delivered. What was lost or trimmed may have numbers
// before it and after it.
func (t *Tracker) AcceptLate(h *wire.Header, passed int, trimmed *uint64) Verdict {
	v, s := t.acceptKept(h, passed, trimmed)
	if o := s.other; o != nil && o.stream == s.stream && s.next <= o.floor {
		*o, s.line = s.line, *o // the next frame goes on there
	}
	return v
}

// AcceptTaken is AcceptLate for a frame that a server took after it had been
// replaced, so no history has it. The publisher may not have been told that the
// server has it, and may send it again, so the verdict is Unknown. If the
// publisher sends the same frame again, it is delivered then. If the publisher
// sends a later one, whichever server takes it, the messages are missing before
// that. If the publisher has been heard with a later one, they are missing now.
func (t *Tracker) AcceptTaken(h *wire.Header, trimmed *uint64) (v Verdict) {
	s, known := t.lookUp(h)
	if !known {
		s.trimmed = *trimmed > 0 // as in acceptKept
	}
	if s.choose(h); h.Seq+uint64(h.Count) <= s.next || s.isBehind() {
		v = t.AcceptLate(h, 0, trimmed)
		v.Missed += h.Count - v.Skip
	} else {
		missing := s.take(h, t.run)
		if s.trimmed {
			missing -= take(trimmed, missing)
		}
		v.Sender, v.Missed, v.Unknown = s.id.Value(), int(missing), true
	}
	v.Skip = h.Count
	return v
}

func (t *Tracker) acceptKept(h *wire.Header, passed int, trimmed *uint64) (v Verdict, s *publisher) {
	s, known := t.lookUp(h)
	v.Sender = s.id.Value()
	from, fresh := s.run, known && s.run != t.run
	s.proof = 0
	if !known {
		s.trimmed = *trimmed > 0 // some of them may be this hub's
	}
	s.choose(h)
	end := h.Seq + uint64(h.Count)
	hole, absurd, seen := uint64(0), false, 0
	reported := fresh || s.trimmed
	lost, before := 0, uint64(0)
	if s.taken != nil {
		lost, before = s.overtake(h, reported, fresh && s.taken.run != t.run, trimmed)
	}
	switch {
	case s.isOpen(h.Stream, h.Seq, end):
		hole, end = s.fill(h.Seq, end, reported), s.next
	case end <= s.next, s.other != nil && s.other.has(h.Stream, h.Seq, end):
		seen, end = h.Count, s.next
	case h.Seq < s.next:
		seen = int(s.next - h.Seq)
	default:
		hole, absurd = s.jump(h.Seq, reported && h.Seq-s.next < suspiciousHole)
	}
	s.next = end
	if hole += before; s.trimmed {
		hole -= take(trimmed, hole)
	}
	unseen := uint64(max(0, passed-seen))
	unseen -= take(trimmed, unseen)
	if !known && passed == h.Count {
		unseen = 0 // it was under way when the room was subscribed
	}
	if v.Missed = lost; fresh {
		v.Earlier, v.From, v.Unknown = int(hole+unseen), from, absurd
	} else {
		v.Missed += int(unseen)
	}
	v.Skip, v.Repeated = max(passed, seen), seen
	return v, s
}

// Accounted reports whether all numbers of a frame of a room with a history are
// accounted for, or may be: it is not known what was before a hub was first
// heard, and whose messages were trimmed.
func (t *Tracker) Accounted(h *wire.Header) bool {
	for i := range t.publishers {
		if s := &t.publishers[i]; s.hub == h.Hub {
			end := h.Seq + uint64(h.Count)
			return s.trimmed || s.has(h.Stream, h.Seq, end) || s.other != nil && s.other.has(h.Stream, h.Seq, end)
		}
	}
	return true
}

// take subtracts up to n from left, and returns how much.
func take(left *uint64, n uint64) uint64 {
	n = min(n, *left)
	*left -= n
	return n
}

// Trim says that messages have been reported missing by their positions. It is
// seen who published them when each publisher is heard again.
func (t *Tracker) Trim() {
	for i := range t.publishers {
		t.publishers[i].trimmed = true
	}
}

// late reports whether a frame may have been sent before the run began: because
// it was sent repeatedly, or because it waited in a server that was cut off.
func (t *Tracker) late(h *wire.Header) bool {
	return h.Resent || t.since != 0 && h.Time < uint64(max(0, t.since-clockSkew.Milliseconds()))
}

// heardOther reports whether a frame of another hub was delivered in this run.
func (t *Tracker) heardOther(hub uint64) bool {
	return t.started && (t.others || t.heard != hub)
}

func (t *Tracker) note(hub uint64) {
	if !t.started {
		t.started, t.heard = true, hub
	} else if t.heard != hub {
		t.others = true
	}
}

// lookUp returns what is known of the publisher of a frame. If it was not known
// its numbers begin with the frame.
func (t *Tracker) lookUp(h *wire.Header) (s *publisher, known bool) {
	s, known = t.find(h)
	t.frames++
	s.age = t.frames
	return s, known
}

func (t *Tracker) find(h *wire.Header) (s *publisher, known bool) {
	if int(t.last) < len(t.publishers) && t.publishers[t.last].hub == h.Hub {
		return &t.publishers[t.last], true
	}
	for i := range t.publishers {
		if t.publishers[i].hub == h.Hub {
			t.last = int32(i)
			return &t.publishers[i], true
		}
	}
	if len(t.publishers) >= maxPublishers {
		t.prune()
	}
	t.last = int32(len(t.publishers))
	t.publishers = append(t.publishers, publisher{
		hub: h.Hub, run: t.run, line: lineAt(h), id: unique.Make(HubID(h.Hub)),
	})
	return &t.publishers[t.last], false
}

// prune forgets the half that was not heard for longest. If such a hub is heard
// again, its numbers begin anew.
func (t *Tracker) prune() {
	kept := make([]publisher, 0, maxPublishers)
	for _, s := range t.publishers {
		if t.frames-s.age < maxPublishers/2 {
			kept = append(kept, s)
		}
	}
	if len(kept) == len(t.publishers) { // all were heard lately
		kept = kept[len(kept)/2:]
	}
	t.publishers = kept
}

// HubID returns the ID of a hub as users see it.
func HubID(hub uint64) string { return fmt.Sprintf("%016x", hub) }
