package fanout

import (
	"fmt"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/wire"
)

// inbound checks the numbers of what comes in on one channel: it finds what is
// missing and what came before. See WIRE.md. Its owner's lock guards it.
type inbound struct {
	streams []stream
	last    int32 // index of the stream that was heard last

	// run counts the times without interruption, from 1; a stream that was not
	// heard in this run may have been missed before it.
	run   uint32
	since int64 // when the run began, in ms since 1970; zero in the first
	// heard is the hub whose frame was the first to be delivered in this run,
	// and others tells that a second hub's was, too.
	heard   uint64
	frames  uint32 // counter for age
	others  bool
	started bool
}

// A stream is what is known of one publishing hub.
type stream struct {
	hub, stream uint64
	next        uint64                // the number that follows what has come
	id          unique.Handle[string] // of the hub, which is known in many rooms
	run         uint32                // inbound.run when it was last heard
	age         uint32                // inbound.frames when it was last heard
	loose       bool                  // what is missing before its next number has been counted
}

// maxStreams bounds the hubs that are remembered; the half that has not been
// heard for longest goes when there are more.
const maxStreams = 2048

// begin starts a run: the subscription stands, anew.
func (in *inbound) begin() {
	in.run++
	if in.run > 1 {
		in.since = time.Now().UnixMilli() // before the first, there was nobody to see an order
	}
	in.heard, in.others, in.started = 0, false, false
}

// accept takes the header of a frame and says how many messages are missing
// before it, and how many of its first messages not to deliver: they came
// before, or (then they are among the missing) they would break the order.
func (in *inbound) accept(h *wire.Header) (missed, repeated, skip int, sender string) {
	s, known := in.find(h)
	in.frames++
	s.age = in.frames
	inRun := known && s.run == in.run
	switch {
	case !known || h.Stream > s.stream:
		if known { // its numbers begin at 1 again
			missed = hole(1, h.Seq)
		}
		s.stream = h.Stream
	case h.Stream < s.stream:
		return 0, h.Count, h.Count, s.id.Value()
	case h.Seq+uint64(h.Count) <= s.next:
		s.run = in.run
		return 0, h.Count, h.Count, s.id.Value()
	case h.Seq < s.next:
		repeated = int(s.next - h.Seq)
		skip = repeated
	default:
		missed = hole(s.next, h.Seq)
	}
	s.next = h.Seq + uint64(h.Count)
	s.run = in.run
	if !inRun && in.heardOther(h.Hub) && in.late(h) {
		// Others may have had it before what we have delivered in this run.
		missed += h.Count - skip
		skip = h.Count
		return missed, repeated, skip, s.id.Value()
	}
	in.note(h.Hub)
	return missed, repeated, skip, s.id.Value()
}

// acceptKept is accept for a room with a history, in which the order and what is
// missing is told by positions. Numbers tell what came before, though it has
// another position now, and, for the first frame of each hub since begin, what a
// server has lost. (Within a run a hole is a message that its publisher knows it
// could not send.)
func (in *inbound) acceptKept(h *wire.Header) (missed, seen int, sender string) {
	s, known := in.find(h)
	in.frames++
	s.age = in.frames
	fresh := known && s.run != in.run && !s.loose
	s.run, s.loose = in.run, false
	end := h.Seq + uint64(h.Count)
	switch {
	case !known:
	case h.Stream < s.stream, h.Stream == s.stream && end <= s.next:
		return 0, h.Count, s.id.Value()
	case h.Stream > s.stream:
		if fresh {
			missed = hole(1, h.Seq)
		}
	case h.Seq < s.next:
		seen = int(s.next - h.Seq)
	case fresh:
		missed = hole(s.next, h.Seq)
	}
	s.stream, s.next = h.Stream, end
	return missed, seen, s.id.Value()
}

// settle means that what was missed by now has been counted otherwise.
func (in *inbound) settle() {
	for i := range in.streams {
		in.streams[i].loose = true
	}
}

// hole is how many numbers are missing. No hub has published that many when it
// is absurd: then somebody has made up a frame.
func hole(from, to uint64) int {
	if n := to - from; n < 1<<40 {
		return int(n)
	}
	return 0
}

// clockSkew is by how much the clocks of hubs may differ. If they differ by more
// the worst is that the first message of a hub after an interruption is reported
// missing, or out of order, when it need not be.
const clockSkew = 250 * time.Millisecond

// late reports whether a frame may have been sent before the run began: because
// it is sent again, or because it waited in a server that was cut off.
func (in *inbound) late(h *wire.Header) bool {
	return h.Resent || (in.since != 0 && int64(h.Time) < in.since-clockSkew.Milliseconds())
}

// heardOther reports whether a frame of another hub was delivered in this run.
func (in *inbound) heardOther(hub uint64) bool {
	return in.started && (in.others || in.heard != hub)
}

// stranger stands for all publishers without a hub.
const stranger = 0

func (in *inbound) note(hub uint64) {
	if !in.started {
		in.started, in.heard = true, hub
	} else if in.heard != hub {
		in.others = true
	}
}

func (in *inbound) find(h *wire.Header) (s *stream, known bool) {
	if int(in.last) < len(in.streams) && in.streams[in.last].hub == h.Hub {
		return &in.streams[in.last], true
	}
	for i := range in.streams {
		if in.streams[i].hub == h.Hub {
			in.last = int32(i)
			return &in.streams[i], true
		}
	}
	if len(in.streams) >= maxStreams {
		in.prune()
	}
	in.last = int32(len(in.streams))
	in.streams = append(in.streams, stream{hub: h.Hub, stream: h.Stream, next: h.Seq, id: unique.Make(hubID(h.Hub))})
	return &in.streams[in.last], false
}

// prune forgets the older half. A hub that is heard again begins anew.
func (in *inbound) prune() {
	kept := make([]stream, 0, maxStreams)
	for _, s := range in.streams {
		if in.frames-s.age < maxStreams/2 {
			kept = append(kept, s)
		}
	}
	if len(kept) == len(in.streams) { // all were heard lately
		kept = kept[len(kept)/2:]
	}
	in.streams = kept
}

func hubID(n uint64) string { return fmt.Sprintf("%016x", n) }

// receiver is the hub as its adapter sees it. None of its methods waits.
type receiver struct{ h *Hub }

func (r receiver) Receive(channel string, frame []byte) {
	if channel == r.h.inbox.channel {
		r.h.inbox.receive(frame)
		return
	}
	if rs := r.h.lookup(channel); rs != nil {
		rs.receive(frame)
	}
}

func (r receiver) ReceiveKept(channel string, f KeptFrame) {
	if rs := r.h.lookup(channel); rs != nil {
		rs.receiveKept(f)
	}
}

func (r receiver) Interrupted(channel string) { r.interrupted(channel, true) }
func (r receiver) Moving(channel string)      { r.interrupted(channel, false) }

// interrupted notes that frames may be missing from here on. Torn means that
// some may be missing from before.
func (r receiver) interrupted(channel string, torn bool) {
	r.h.stats.interruptions.Add(1)
	if channel == r.h.inbox.channel {
		r.h.inbox.interrupt()
		return
	}
	if rs := r.h.lookup(channel); rs != nil {
		rs.mu.Lock()
		rs.interrupted = true
		if rs.kept != nil {
			rs.kept.torn = rs.kept.torn || torn
		}
		rs.mu.Unlock()
	}
}

func (r receiver) Restored(channel string) {
	if channel == r.h.inbox.channel {
		r.h.inbox.restore()
		return
	}
	if rs := r.h.lookup(channel); rs != nil {
		rs.restore()
	}
}

func (h *Hub) lookup(channel string) *roomState {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.rooms[channel]
}

// restore tells the members that messages may be missing, now that the link is
// back. How many it was their publishers' next messages show.
func (rs *roomState) restore() {
	rs.mu.Lock()
	rs.interrupted = false
	if rs.kept != nil {
		rs.read()
		rs.tell()
		rs.mu.Unlock()
		return
	}
	rs.in.begin()
	var w wakeups
	if rs != rs.hub.everyone || rs.in.frames > 0 { // as inbox.restore
		w = rs.append(roomlog.Gap{Unknown: true}, nil)
	}
	rs.tell()
	rs.mu.Unlock()
	w.run(rs.hub)
}

// prepare is called before something is put into the log, without locks.
func (rs *roomState) prepare() {
	if rs == rs.hub.everyone {
		rs.hub.hearEveryone()
	}
}

// receive delivers a frame to the room's members on this hub.
func (rs *roomState) receive(frame []byte) {
	h := rs.hub
	rs.prepare()
	scratch := scratches.Get().(*[]entry)
	defer scratches.Put(scratch)
	head, entries, err := h.decode(frame, (*scratch)[:0])
	h.stats.received.Add(uint64(len(entries)))
	if err != nil {
		clear((*scratch)[:cap(*scratch)])
		h.malformed(rs.channel, err)
		rs.mu.Lock()
		w := rs.append(roomlog.Gap{Unknown: true}, nil)
		rs.mu.Unlock()
		w.run(h)
		return
	}
	rs.mu.Lock()
	var w wakeups
	if rs.kept != nil && rs.kept.busy { // it waits with the others, to keep the order
		w = rs.takeKept(keptBatch{head: head, entries: slices.Clone(entries)}, len(frame))
	} else {
		w = rs.take(&head, entries)
	}
	rs.mu.Unlock()
	clear(entries) // the log has copied them
	*scratch = entries[:0]
	w.run(h)
}

// scratches are for entries on their way from a frame into a log.
var scratches = sync.Pool{New: func() any { return new([]entry) }}

// take puts what has no position into the log. rs.mu is held.
func (rs *roomState) take(head *wire.Header, entries []entry) wakeups {
	h := rs.hub
	var gap roomlog.Gap
	if head.Count > 0 { // a frame of a hub
		missed, repeated, skip, sender := rs.in.accept(head)
		gap.Missed = missed
		entries = entries[skip:]
		for i := range entries {
			entries[i].sender = sender
		}
		h.stats.missed.Add(uint64(missed))
		h.stats.repeated.Add(uint64(repeated))
	} else {
		rs.in.note(stranger)
		h.stats.foreign.Add(1)
	}
	if rs.interrupted && len(entries) > 0 && rs.kept == nil {
		gap.Unknown = true // the adapter may have lost some before these
	}
	return rs.append(gap, entries)
}

// decode turns a frame into entries without their sender, which it appends to
// some that there are. A stranger's payload gives one entry and a header with
// Count 0.
func (h *Hub) decode(frame []byte, entries []entry) (wire.Header, []entry, error) {
	head, d, err := wire.Decode(frame)
	if err == wire.ErrForeign {
		return wire.Header{}, append(entries, entry{data: payload(frame)}), nil
	}
	if err != nil {
		return head, nil, err
	}
	entries = slices.Grow(entries, head.Count)
	var m wire.Message
	for {
		more, err := d.Next(&m)
		if err != nil {
			return head, nil, err
		}
		if !more {
			return head, entries, nil
		}
		entries = append(entries, entry{data: payload(m.Data), volatile: m.Volatile, filter: h.filterFor(head.Hub, &m)})
	}
}

func (h *Hub) malformed(channel string, err error) {
	if h.stats.malformed.Add(1) == 1 {
		h.log.error("fanout: frame dropped, is another program or version publishing here? (said once; see Stats.Malformed)",
			"channel", channel, "error", err)
	}
}

// deliverFrame gives the members of this hub a frame of its own that could not
// be published. If it comes back after all it is known by its numbers.
func (rs *roomState) deliverFrame(frame []byte) {
	head, entries, err := rs.hub.decode(frame, nil)
	if err != nil {
		return // cannot be: the hub has just encoded it
	}
	rs.prepare()
	rs.mu.Lock()
	var missed, skip int
	var sender string
	if rs.kept != nil {
		missed, skip, sender = rs.in.acceptKept(&head)
	} else {
		missed, _, skip, sender = rs.in.accept(&head)
	}
	for i := range entries {
		entries[i].sender = sender
	}
	rs.hub.stats.missed.Add(uint64(missed))
	w := rs.append(roomlog.Gap{Missed: missed}, entries[skip:])
	rs.mu.Unlock()
	w.run(rs.hub)
}

// deliver gives a message to the members of this hub. It has no number.
func (rs *roomState) deliver(e entry) {
	rs.prepare()
	rs.mu.Lock()
	w := rs.append(roomlog.Gap{}, []entry{e})
	rs.mu.Unlock()
	w.run(rs.hub)
}
