package fanout

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unique"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/clock"
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
	if room := r.h.lookup(channel); room != nil {
		room.receive(frame)
	}
}

func (r receiver) ReceiveKept(channel string, f adapter.KeptFrame) {
	if room := r.h.lookup(channel); room != nil {
		room.receiveKept(f)
	}
}

func (r receiver) Interrupted(channel string) { r.interrupted(channel, true) }

func (r receiver) Moving(channel string) { r.interrupted(channel, false) }

// interrupted notes that frames may be missing from here on, and, if
// it was unclean, from before.
func (r receiver) interrupted(channel string, unclean bool) {
	r.h.stats.interruptions.Add(1)
	if channel == r.h.inboxChannel {
		r.h.inbox.Interrupted()
		return
	}
	if room := r.h.lookup(channel); room != nil {
		room.mu.Lock()
		room.life.Interrupt()
		if room.kept != nil {
			room.kept.Follower.Interrupted(unclean)
		}
		room.mu.Unlock()
	}
}

func (r receiver) Restored(channel string) {
	if channel == r.h.inboxChannel {
		if r.h.inbox.Restored() {
			r.h.tellAll()
		}
		return
	}
	if room := r.h.lookup(channel); room != nil {
		room.restore()
	}
}

func (h *Hub) lookup(channel string) *room {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.rooms[channel]
}

// restore tells the members that messages may be missing, now that the link is
// back. The next messages of their publishers show how many.
func (r *room) restore() {
	r.mu.Lock()
	r.life.Restore()
	var w wakeups
	changes := func() {}
	if p := r.presence(); p != nil {
		changes = p.Restored()
	}
	if r.kept != nil {
		r.kept.Begin(r.kept.Follower.Restored())
		r.tell()
		r.mu.Unlock()
		changes()
		return
	}
	r.in.BeginRun(time.Now())
	if r == r.hub.everyone {
		r.hub.lookout.Restored()
	}
	if r.name != "" || r.in.Heard() { // as Inbox.Restored
		w = r.append(roomlog.Gap{Unknown: true}, nil)
	}
	r.tell()
	r.mu.Unlock()
	changes()
	w.run(r.hub)
}

// prepare is called before something is put into the log, without locks.
func (r *room) prepare() {
	if r == r.hub.everyone {
		r.hub.attachEveryone()
	}
}

// receive delivers a frame to the room's members on this hub.
func (r *room) receive(frame []byte) {
	h := r.hub
	var b batch.Batch
	err := b.Open(frame)
	if errors.Is(err, wire.ErrNotice) {
		if carried, ok := wire.DecodeUnkept(frame); ok {
			r.receiveUnkept(carried)
			return
		}
		h.notice(r, r.channel, frame)
		return
	}
	r.prepare()
	h.stats.received.Add(uint64(b.Count()))
	if err != nil {
		r.unreadable(err)
		return
	}
	r.mu.Lock()
	var w wakeups
	if r.kept != nil {
		if b.Head.Count > 0 {
			h.hellos.Heard(b.Head.Hub)
		}
		f := batch.WithoutPlace(&b, len(frame))
		w = r.takeKept(&f, clock.Now())
	} else {
		w = r.take(&b)
	}
	r.mu.Unlock()
	w.run(h)
}

// receiveUnkept delivers a message that is in no history.
func (r *room) receiveUnkept(frame []byte) {
	h := r.hub
	var b batch.Batch
	err := b.Open(frame)
	if err == nil && b.Foreign() {
		err = wire.ErrForeign
	}
	if err != nil {
		h.malformed(r.channel, err)
		return
	}
	h.hellos.Heard(b.Head.Hub)
	h.stats.received.Add(uint64(b.Count()))
	var u batch.Unpacker
	b.Unpack(&u, &h.home, 0, unique.Make(hubID(b.Head.Hub)).Value())
	for u.Read() {
		if u.Understood() {
			r.deliver(u.Entry())
		}
	}
	h.notUnderstood(r.channel, u.TakeNotUnderstood())
}

// unreadable takes a frame that cannot be read: a gap of unknown size.
func (r *room) unreadable(err error) {
	r.hub.malformed(r.channel, err)
	r.mu.Lock()
	w := r.append(roomlog.Gap{Unknown: true}, nil)
	r.mu.Unlock()
	w.run(r.hub)
}

// take puts messages without a position into the log.
func (r *room) take(b *batch.Batch) wakeups {
	r.mu.AssertHeld()
	h := r.hub
	var earlier, gap roomlog.Gap
	var v sequence.Verdict
	if b.Head.Count > 0 { // a frame of a hub
		h.hellos.Heard(b.Head.Hub)
		v = r.in.Accept(&b.Head)
		earlier, gap = r.gaps(&v)
		h.stats.repeated.Add(uint64(v.Repeated))
	} else {
		r.in.AcceptStranger()
		h.stats.foreign.Add(1)
	}
	if r.life.Interrupted() && b.Count() > v.Skip {
		gap.Unknown = true // the adapter may have lost some messages before these
	}
	var u batch.Unpacker
	b.Unpack(&u, &h.home, v.Skip, v.Sender)
	return r.appendBatch(earlier, gap, &u, 0, 0)
}

// receiveKept takes a frame with its position from the adapter.
func (r *room) receiveKept(f adapter.KeptFrame) {
	h := r.hub
	if r.kept == nil { // other hubs keep a history of this room, and this one does not
		r.receive(f.Frame)
		return
	}
	if !believed(f.At) {
		r.unreadable(fmt.Errorf("a frame with the position %v", f.At))
		return
	}
	var b batch.KeptFrame
	now := clock.Now()
	err := batch.OpenKept(&b, f, now)
	if b.Header.Count > 0 {
		h.hellos.Heard(b.Header.Hub)
	}
	h.stats.received.Add(uint64(b.Messages))
	if err != nil {
		h.malformed(r.channel, err)
	}
	r.mu.Lock()
	w := r.takeKept(&b, now)
	r.mu.Unlock()
	w.run(h)
}

// takeKept takes a frame that has arrived.
func (r *room) takeKept(b *batch.KeptFrame, now int64) wakeups {
	r.mu.AssertHeld()
	a, placed, read := r.kept.Follower.Receive(b, clock.Time(now))
	if !placed {
		r.kept.Begin(read)
		return wakeups{}
	}
	return r.put(&a, b)
}

// put appends what the follower of the history has decided, with messages of b.
func (r *room) put(a *follow.Append, b *batch.KeptFrame) wakeups {
	r.mu.AssertHeld()
	h, k := r.hub, r.kept
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
		k.Store.Reset(a.From)
	}
	if !a.Messages {
		return r.appendAfter(a.Earlier, a.Gap, nil)
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
	return r.appendBatch(a.Earlier, a.Gap, &u, a.Had, b.Body.Since)
}

// unpackAtOnce is how many entries are made at a time.
const unpackAtOnce = 256

// scratches are for entries on their way from a frame into a log.
var scratches = sync.Pool{New: func() any { return new([unpackAtOnce]item.Entry) }}

// appendBatch puts a gap and the messages of u into the log, as one arrival.
// The members in the room have had the first known of them: those are only for
// members that come from behind, in a room with a history. kept is when the
// messages were kept; see package clock.
//
// Entries are made a few at a time, and of no more messages than the window
// holds, unless the room holds more for members that come from behind.
func (r *room) appendBatch(earlier, gap roomlog.Gap, u *batch.Unpacker, known int, kept int64) wakeups {
	r.mu.AssertHeld()
	scratch := scratches.Get().(*[unpackAtOnce]item.Entry)
	defer scratches.Put(scratch)
	var log roomlog.Wakeups[item.Entry, *membership]
	first := true
	wide := r.kept != nil && r.kept.Store.Wide()
	if over := u.Left() - known - r.window().Messages; over > 0 && !wide {
		u.PassOver(known)
		u.TakeNotUnderstood()
		log, known, first = r.log.PassOver(earlier, gap, u.PassOver(over)), 0, false
		r.hub.notUnderstood(r.channel, u.TakeNotUnderstood())
		if r.kept != nil && !u.At.IsZero() {
			r.kept.Store.Reset(u.At)
		}
	}
	for u.More() {
		unknown, entries := u.Fill(scratch[:0])
		missed := unknown.Count - min(known, unknown.Count)
		known -= unknown.Count - missed
		if missed > 0 {
			unknown.Count = missed
			r.hub.notUnderstood(r.channel, unknown)
			if first {
				gap.Missed += missed
			}
		}
		if r.kept != nil {
			if unknown.Count > 0 && !unknown.At.IsZero() {
				r.kept.Store.Reset(unknown.At)
			}
			r.kept.Add(entries, kept)
		}
		news := entries[min(known, len(entries)):]
		known -= len(entries) - len(news)
		switch {
		case first && len(news)+missed > 0:
			log = r.log.AppendAfter(earlier, gap, news)
			first = false
		case len(news)+missed > 0:
			log = log.Join(r.log.AppendMore(roomlog.Gap{Missed: missed}, news))
		}
		clear(entries) // the log has copied them
	}
	if first {
		log = r.log.AppendAfter(earlier, gap, nil)
	}
	return r.appended(log)
}

// gaps counts the messages that are missing by a frame's numbers, and returns
// them as gaps: those from before this run, and those that all members miss.
func (r *room) gaps(v *sequence.Verdict) (earlier, gap roomlog.Gap) {
	r.mu.AssertHeld()
	if v.Lost() > 0 {
		r.hub.stats.missed.Add(uint64(v.Lost()))
	}
	if v.Earlier > 0 {
		earlier = roomlog.Gap{Missed: v.Earlier, From: v.From, Until: r.in.Run()}
	}
	return earlier, roomlog.Gap{Missed: v.Missed, Unknown: v.Unknown}
}

// deliver gives a message to the members of this hub. It has no number.
func (r *room) deliver(e item.Entry) {
	r.prepare()
	r.mu.Lock()
	w := r.append(roomlog.Gap{}, []item.Entry{e})
	r.mu.Unlock()
	w.run(r.hub)
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
		h.pool.Aside(func() { // ending a member waits for its locks
			for _, m := range w.slow {
				m.end(ErrSlow)
			}
		})
	}
}
