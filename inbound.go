package fanout

import (
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/sequence"
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

func (r receiver) ReceiveKept(channel string, f adapter.KeptFrame) {
	if rs := r.h.lookup(channel); rs != nil {
		rs.receiveKept(f)
	}
}

func (r receiver) Interrupted(channel string) { r.interrupted(channel, true) }

func (r receiver) Moving(channel string) { r.interrupted(channel, false) }

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
	var b batch
	err := b.open(frame)
	h.stats.received.Add(uint64(b.count()))
	if err != nil {
		rs.unreadable(err)
		return
	}
	rs.mu.Lock()
	var w wakeups
	if rs.kept != nil && rs.kept.busy { // it waits with the others, to keep the order
		w = rs.takeKept(keptBatch{batch: b}, len(frame))
	} else {
		w = rs.take(&b)
	}
	rs.mu.Unlock()
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

// take puts what has no position into the log.
func (rs *roomState) take(b *batch) wakeups {
	rs.mu.AssertHeld()
	h := rs.hub
	var earlier, gap roomlog.Gap
	var v sequence.Verdict
	if b.head.Count > 0 { // a frame of a hub
		v = rs.in.Accept(&b.head)
		earlier, gap = rs.gaps(&v)
		h.stats.repeated.Add(uint64(v.Repeated))
	} else {
		rs.in.AcceptStranger()
		h.stats.foreign.Add(1)
	}
	if rs.interrupted && b.count() > v.Skip && rs.kept == nil {
		gap.Unknown = true // the adapter may have lost some before these
	}
	var u unpacker
	b.unpack(&u, h, v.Skip, v.Sender)
	return rs.appendBatch(earlier, gap, &u, 0, 0)
}

// gaps returns what a frame's numbers say to be missing, counted: before this
// run, and for everybody.
func (rs *roomState) gaps(v *sequence.Verdict) (earlier, gap roomlog.Gap) {
	rs.mu.AssertHeld()
	if v.Lost() > 0 {
		rs.hub.stats.missed.Add(uint64(v.Lost()))
	}
	if v.Earlier > 0 {
		earlier = roomlog.Gap{Missed: v.Earlier, From: v.From, Until: rs.in.Run()}
	}
	return earlier, roomlog.Gap{Missed: v.Missed, Unknown: v.Unknown}
}

func (h *Hub) malformed(channel string, err error) {
	if h.stats.malformed.Add(1) == 1 {
		h.log.Error("fanout: frame dropped, is another program or version publishing here? (said once; see Stats.Malformed)",
			"channel", channel, "error", err)
	}
}

// deliverFrame gives the members of this hub a frame of its own that could not
// be published. If it comes back after all it is known by its numbers.
func (rs *roomState) deliverFrame(frame []byte) {
	var b batch
	if err := b.open(frame); err != nil {
		return // cannot be: the hub has just encoded it
	}
	rs.prepare()
	rs.mu.Lock()
	var v sequence.Verdict
	if rs.kept != nil {
		v = rs.in.AcceptKept(&b.head, 0, &rs.kept.trimmed)
	} else {
		v = rs.in.Accept(&b.head)
	}
	earlier, gap := rs.gaps(&v)
	var u unpacker
	b.unpack(&u, rs.hub, v.Skip, v.Sender)
	w := rs.appendBatch(earlier, gap, &u, 0, 0)
	rs.mu.Unlock()
	w.run(rs.hub)
}

// deliver gives a message to the members of this hub. It has no number.
func (rs *roomState) deliver(e item.Entry) {
	rs.prepare()
	rs.mu.Lock()
	w := rs.append(roomlog.Gap{}, []item.Entry{e})
	rs.mu.Unlock()
	w.run(rs.hub)
}

// wakeSelf is the number of members that a goroutine that delivers a message wakes
// itself. Waking a goroutine costs some hundred nanoseconds: with more it would
// keep the adapter's reader from the next frame.
const wakeSelf = 16

// wakeups are what follows an append, outside of all locks.
type wakeups struct {
	log  roomlog.Wakeups[item.Entry, *membership]
	slow []*Member
}

// run wakes a few members itself and leaves a crowd to the hub's wakers, so
// that the adapter's reader goes on to the next frame.
func (w wakeups) run(h *Hub) {
	if rest := w.log.Wake(wakeSelf); !rest.None() {
		h.wakers.Add(rest)
	}
	if len(w.slow) > 0 {
		h.readers.aside(func() { // ending a member waits for its locks
			for _, m := range w.slow {
				m.end(ErrSlow)
			}
		})
	}
}
