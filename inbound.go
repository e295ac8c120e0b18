package fanout

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unique"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/batch"
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
	if channel == r.h.inboxChannel {
		r.h.receiveDirect(frame)
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
	if channel == r.h.inboxChannel {
		r.h.inbox.Interrupted()
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
	if channel == r.h.inboxChannel {
		if r.h.inbox.Restored() {
			r.h.tellAll()
		}
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
	var w wakeups
	changes := func() {}
	if p := rs.presence(); p != nil {
		changes = p.Restored()
	}
	if rs.kept != nil {
		rs.readHistory(rs.kept.follower.Restored())
		rs.tell()
		rs.mu.Unlock()
		changes()
		return
	}
	rs.in.BeginRun(time.Now())
	if rs == rs.hub.everyone {
		rs.hub.lookout.Restored()
	}
	if rs.name != "" || rs.in.Heard() { // as Inbox.Restored
		w = rs.append(roomlog.Gap{Unknown: true}, nil)
	}
	rs.tell()
	rs.mu.Unlock()
	changes()
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
	var b batch.Batch
	err := b.Open(frame)
	if errors.Is(err, wire.ErrNotice) {
		if carried, ok := wire.DecodeUnkept(frame); ok {
			rs.receiveUnkept(carried)
			return
		}
		h.notice(rs, rs.channel, frame)
		return
	}
	rs.prepare()
	h.stats.received.Add(uint64(b.Count()))
	if err != nil {
		rs.unreadable(err)
		return
	}
	rs.mu.Lock()
	var w wakeups
	if rs.kept != nil {
		if b.Head.Count > 0 {
			h.hellos.Heard(b.Head.Hub)
		}
		f := batch.WithoutPlace(&b, len(frame))
		w = rs.takeKept(&f, ticks())
	} else {
		w = rs.take(&b)
	}
	rs.mu.Unlock()
	w.run(h)
}

// receiveUnkept delivers a message that is in no history.
func (rs *roomState) receiveUnkept(frame []byte) {
	h := rs.hub
	var b batch.Batch
	err := b.Open(frame)
	if err == nil && b.Foreign() {
		err = wire.ErrForeign
	}
	if err != nil {
		h.malformed(rs.channel, err)
		return
	}
	h.hellos.Heard(b.Head.Hub)
	h.stats.received.Add(uint64(b.Count()))
	var u batch.Unpacker
	b.Unpack(&u, &h.home, 0, unique.Make(hubID(b.Head.Hub)).Value())
	for u.Read() {
		if u.Understood() {
			rs.deliver(u.Entry())
		}
	}
	h.notUnderstood(rs.channel, u.TakeNotUnderstood())
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
func (rs *roomState) take(b *batch.Batch) wakeups {
	rs.mu.AssertHeld()
	h := rs.hub
	var earlier, gap roomlog.Gap
	var v sequence.Verdict
	if b.Head.Count > 0 { // a frame of a hub
		h.hellos.Heard(b.Head.Hub)
		v = rs.in.Accept(&b.Head)
		earlier, gap = rs.gaps(&v)
		h.stats.repeated.Add(uint64(v.Repeated))
	} else {
		rs.in.AcceptStranger()
		h.stats.foreign.Add(1)
	}
	if rs.interrupted && b.Count() > v.Skip {
		gap.Unknown = true // the adapter may have lost some before these
	}
	var u batch.Unpacker
	b.Unpack(&u, &h.home, v.Skip, v.Sender)
	return rs.appendBatch(earlier, gap, &u, 0, 0)
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
	var b batch.KeptFrame
	now := ticks()
	err := batch.OpenKept(&b, f, now)
	if b.Header.Count > 0 {
		h.hellos.Heard(b.Header.Hub)
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

// takeKept takes a frame that has arrived.
func (rs *roomState) takeKept(b *batch.KeptFrame, now int64) wakeups {
	rs.mu.AssertHeld()
	a, placed, read := rs.kept.follower.Receive(b, timeOf(now))
	if !placed {
		rs.readHistory(read)
		return wakeups{}
	}
	return rs.put(&a, b)
}

// put appends what the follower of the history has decided, with messages of b.
func (rs *roomState) put(a *follow.Append, b *batch.KeptFrame) wakeups {
	rs.mu.AssertHeld()
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
	var u batch.Unpacker
	if a.Positions {
		batch.UnpackKept(&u, b, &h.home, a.Skip, a.Sender)
	} else {
		b.Body.Unpack(&u, &h.home, a.Skip, a.Sender)
		if b.At.IsZero() && b.Header.Count == 0 {
			h.stats.foreign.Add(1)
		}
	}
	return rs.appendBatch(a.Earlier, a.Gap, &u, a.Had, b.Body.Since)
}

// unpackAtOnce is how many entries are made at a time.
const unpackAtOnce = 256

// scratches are for entries on their way from a frame into a log.
var scratches = sync.Pool{New: func() any { return new([unpackAtOnce]item.Entry) }}

// appendBatch puts a gap and the messages of u into the log, as one arrival.
// The members in the room have had the first few of them (known): those are
// only for members that come from behind, in a room with a history. kept is
// when the messages were kept; see ticks.
//
// Entries are made of no more messages than the window holds, unless the room
// holds more for members that come from behind, and of a few at a time.
func (rs *roomState) appendBatch(earlier, gap roomlog.Gap, u *batch.Unpacker, known int, kept int64) wakeups {
	rs.mu.AssertHeld()
	scratch := scratches.Get().(*[unpackAtOnce]item.Entry)
	defer scratches.Put(scratch)
	var log roomlog.Wakeups[item.Entry, *membership]
	first := true
	wide := rs.kept != nil && rs.kept.store.Wide()
	if over := u.Left() - known - rs.window().Messages; over > 0 && !wide {
		u.PassOver(known)
		u.TakeNotUnderstood()
		log, known, first = rs.log.PassOver(earlier, gap, u.PassOver(over)), 0, false
		rs.hub.notUnderstood(rs.channel, u.TakeNotUnderstood())
		if rs.kept != nil && !u.At.IsZero() {
			rs.kept.store.Reset(u.At)
		}
	}
	for u.More() {
		unknown, entries := u.Fill(scratch[:0])
		missed := unknown.Count - min(known, unknown.Count)
		known -= unknown.Count - missed
		if missed > 0 {
			unknown.Count = missed
			rs.hub.notUnderstood(rs.channel, unknown)
			if first {
				gap.Missed += missed
			}
		}
		if rs.kept != nil {
			if unknown.Count > 0 && !unknown.At.IsZero() {
				rs.kept.store.Reset(unknown.At)
			}
			rs.addRecent(entries, kept)
		}
		news := entries[min(known, len(entries)):]
		known -= len(entries) - len(news)
		switch {
		case first && len(news)+missed > 0:
			log = rs.log.AppendAfter(earlier, gap, news)
			first = false
		case len(news)+missed > 0:
			log = log.Join(rs.log.AppendMore(roomlog.Gap{Missed: missed}, news))
		}
		clear(entries) // the log has copied them
	}
	if first {
		log = rs.log.AppendAfter(earlier, gap, nil)
	}
	return rs.appended(log)
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

// deliver gives a message to the members of this hub. It has no number.
func (rs *roomState) deliver(e item.Entry) {
	rs.prepare()
	rs.mu.Lock()
	w := rs.append(roomlog.Gap{}, []item.Entry{e})
	rs.mu.Unlock()
	w.run(rs.hub)
}

// wakeSelf is the number of members that a goroutine that delivers a message
// wakes itself. Waking a goroutine costs some hundred nanoseconds: with more it
// would keep the adapter's reader from the next frame.
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
