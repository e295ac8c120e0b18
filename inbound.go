package fanout

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/follow"
	"github.com/fanoutgo/fanout/internal/item"
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
			rs.kept.follower.Interrupted(torn)
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
		rs.readHistory(rs.kept.follower.Restored())
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
	var b batch
	err := b.open(frame)
	if errors.Is(err, wire.ErrNotice) {
		h.notice(rs, rs.channel, frame)
		return
	}
	rs.prepare()
	h.stats.received.Add(uint64(b.count()))
	if err != nil {
		rs.unreadable(err)
		return
	}
	rs.mu.Lock()
	var w wakeups
	if rs.kept != nil {
		if b.head.Count > 0 {
			h.hellos.heard(b.head.Hub)
		}
		f := keptFrameOf(&b, len(frame))
		w = rs.takeKept(&f, ticks())
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
		h.hellos.heard(b.head.Hub)
		v = rs.in.Accept(&b.head)
		earlier, gap = rs.gaps(&v)
		h.stats.repeated.Add(uint64(v.Repeated))
	} else {
		rs.in.AcceptStranger()
		h.stats.foreign.Add(1)
	}
	if rs.interrupted && b.count() > v.Skip {
		gap.Unknown = true // the adapter may have lost some before these
	}
	var u unpacker
	b.unpack(&u, h, v.Skip, v.Sender)
	return rs.appendBatch(earlier, gap, &u, 0, 0)
}

// A keptBatch is a batch of a room with a history.
type keptBatch struct {
	batch
	kept int64 // when it was kept, by our own clock: see ticks
}

// A keptFrame is a frame of a room with a history, and its place there.
type keptFrame = follow.Frame[keptBatch]

// openKept checks a frame that has a position, which is believed, and puts it into
// b, which is zero. It says what is wrong with one that cannot be read.
func openKept(b *keptFrame, f adapter.KeptFrame, now int64) error {
	err := b.Body.open(f.Frame)
	if n := uint64(b.Body.count()); err == nil && n > f.At.Offset {
		err = fmt.Errorf("%d messages that end at offset %d", n, f.At.Offset)
		b.Body.batch = batch{}
	}
	describe(b, len(f.Frame))
	b.At, b.First, b.Unreadable = f.At, f.At.Offset, err != nil
	if err == nil {
		b.First -= uint64(b.Messages) - 1
	}
	b.Body.kept = now - f.Age.Nanoseconds()
	return err
}

// keptFrameOf returns a batch as a frame of a room with a history, without a place
// there.
func keptFrameOf(b *batch, size int) keptFrame {
	f := keptFrame{Body: keptBatch{batch: *b}}
	describe(&f, size)
	return f
}

// describe says what the follower of the history needs to know of the body of b.
func describe(b *keptFrame, size int) {
	b.Header, b.Messages, b.Size = b.Body.head, b.Body.count(), size+int(unsafe.Sizeof(keptFrame{}))
}

// unpackKept makes u, which is zero, the unpacker of what comes after the first
// skip messages of a frame, with their positions.
func (k *retained) unpackKept(u *unpacker, h *Hub, b *keptFrame, skip int, sender string) {
	b.Body.unpack(u, h, skip, sender)
	u.at = adapter.Position{Epoch: b.At.Epoch, Offset: b.First + uint64(skip) - 1}
}

// receiveKept takes a frame with its position from the adapter.
func (rs *roomState) receiveKept(f adapter.KeptFrame) {
	h := rs.hub
	if rs.kept == nil { // other hubs keep a history here, and we do not
		rs.receive(f.Frame)
		return
	}
	if !believed(f.At) {
		rs.unreadable(fmt.Errorf("a frame with the position %v", f.At))
		return
	}
	var b keptFrame
	now := ticks()
	err := openKept(&b, f, now)
	if b.Header.Count > 0 {
		h.hellos.heard(b.Header.Hub)
	}
	h.stats.received.Add(uint64(b.Messages))
	if err != nil {
		h.malformed(rs.channel, err)
	}
	rs.mu.Lock()
	w := rs.takeKept(&b, now)
	rs.mu.Unlock()
	w.run(h)
}

// takeKept takes a frame that has arrived. rs.mu is held.
func (rs *roomState) takeKept(b *keptFrame, now int64) wakeups {
	a, placed, read := rs.kept.follower.Receive(b, timeOf(now))
	if !placed {
		rs.readHistory(read)
		return wakeups{}
	}
	return rs.put(&a, b)
}

// put appends what the follower of the history has decided, with messages of b.
// rs.mu is held.
func (rs *roomState) put(a *follow.Append, b *keptFrame) wakeups {
	h, k := rs.hub, rs.kept
	if missed := a.Missed(); missed > 0 {
		h.stats.missed.Add(uint64(missed))
	}
	if a.Repeated > 0 {
		h.stats.repeated.Add(uint64(a.Repeated))
	}
	if a.Recovered > 0 {
		h.stats.recovered.Add(a.Recovered)
	}
	if a.Restart {
		k.store.Reset(a.From)
	}
	if !a.Messages {
		return rs.appendAfter(a.Earlier, a.Gap, nil)
	}
	var u unpacker
	if a.Positions {
		k.unpackKept(&u, h, b, a.Skip, a.Sender)
	} else {
		b.Body.unpack(&u, h, a.Skip, a.Sender)
		if b.At.IsZero() && b.Header.Count == 0 {
			h.stats.foreign.Add(1)
		}
	}
	return rs.appendBatch(a.Earlier, a.Gap, &u, a.Had, b.Body.kept)
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

// notUnderstood counts messages that a newer release has sent, and that cannot be
// delivered. It may be called with locks held.
func (h *Hub) notUnderstood(channel string, x hole) {
	if x.count == 0 {
		return
	}
	h.stats.notUnderstood.Add(uint64(x.count))
	if h.unknownField.first() {
		h.log.Warn("fanout: message not delivered, it has a field that this release does not know (said once a minute; see Stats.NotUnderstood)",
			"channel", channel, "field", x.field)
	}
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
	var w wakeups
	if rs.kept != nil {
		f := keptFrameOf(&b, len(frame))
		a := rs.kept.follower.Fallback(&f)
		w = rs.put(&a, &f)
	} else {
		v := rs.in.Accept(&b.head)
		earlier, gap := rs.gaps(&v)
		var u unpacker
		b.unpack(&u, rs.hub, v.Skip, v.Sender)
		w = rs.appendBatch(earlier, gap, &u, 0, 0)
	}
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
		h.readers.Aside(func() { // ending a member waits for its locks
			for _, m := range w.slow {
				m.end(ErrSlow)
			}
		})
	}
}
