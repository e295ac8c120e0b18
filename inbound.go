package fanout

import (
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/sequence"
	"github.com/fanoutgo/fanout/internal/wire"
)

func hubID(n uint64) string { return sequence.HubID(n) }

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
	rs.in.BeginRun(time.Now())
	var w wakeups
	if rs != rs.hub.everyone || rs.in.Heard() { // as inbox.restore
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
		rs.unreadable(err)
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

// unreadable takes a frame that cannot be read: a gap of unknown size.
func (rs *roomState) unreadable(err error) {
	rs.hub.malformed(rs.channel, err)
	rs.mu.Lock()
	w := rs.append(roomlog.Gap{Unknown: true}, nil)
	rs.mu.Unlock()
	w.run(rs.hub)
}

// scratches are for entries on their way from a frame into a log.
var scratches = sync.Pool{New: func() any { return new([]entry) }}

// take puts what has no position into the log. rs.mu is held.
func (rs *roomState) take(head *wire.Header, entries []entry) wakeups {
	h := rs.hub
	var earlier, gap roomlog.Gap
	if head.Count > 0 { // a frame of a hub
		v := rs.in.Accept(head)
		earlier, gap = rs.gaps(&v)
		entries = entries[v.Skip:]
		for i := range entries {
			entries[i].sender = v.Sender
		}
		h.stats.repeated.Add(uint64(v.Repeated))
	} else {
		rs.in.AcceptStranger()
		h.stats.foreign.Add(1)
	}
	if rs.interrupted && len(entries) > 0 && rs.kept == nil {
		gap.Unknown = true // the adapter may have lost some before these
	}
	return rs.appendAfter(earlier, gap, entries)
}

// gaps returns what a frame's numbers say to be missing, counted: before this run,
// and for everybody. rs.mu is held.
func (rs *roomState) gaps(v *sequence.Verdict) (earlier, gap roomlog.Gap) {
	if v.Lost() > 0 {
		rs.hub.stats.missed.Add(uint64(v.Lost()))
	}
	if v.Earlier > 0 {
		earlier = roomlog.Gap{Missed: v.Earlier, From: v.From, Until: rs.in.Run()}
	}
	return earlier, roomlog.Gap{Missed: v.Missed, Unknown: v.Unknown}
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
	var v sequence.Verdict
	if rs.kept != nil {
		v = rs.in.AcceptKept(&head, 0, &rs.kept.trimmed)
	} else {
		v = rs.in.Accept(&head)
	}
	for i := range entries {
		entries[i].sender = v.Sender
	}
	earlier, gap := rs.gaps(&v)
	w := rs.appendAfter(earlier, gap, entries[v.Skip:])
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
