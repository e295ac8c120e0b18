package fanout

import (
	"errors"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// read has the room's history read, from the last position on. rs.mu is held.
func (rs *roomState) read() {
	if k := rs.kept; k.busy {
		k.again = true
		return
	}
	rs.readAfter(0)
}

// readAfter is read after a pause, of a room for which nobody reads. rs.mu is
// held.
func (rs *roomState) readAfter(pause time.Duration) {
	h, k, life := rs.hub, rs.kept, rs.kept.life
	k.busy, k.waiting, k.err, k.lived, k.old = true, false, nil, k.pos.Epoch, 0
	run := func(one *reading) { h.catchUp(one, rs, life, firstRetry) }
	if pause > 0 {
		time.AfterFunc(pause, func() { h.readers.add(run) })
		return
	}
	h.readers.add(run)
}

// doubts are what a room knows of frames that its history did not have.
type doubts struct {
	patience
	beside adapter.Position // of the last one that was delivered all the same
}

func (k *retained) doubt() *doubts {
	if k.doubts == nil {
		k.doubts = new(doubts)
	}
	return k.doubts
}

// pause says how long to wait before a reading that a frame asks for.
func (k *retained) pause() time.Duration {
	if k.doubts == nil {
		return 0
	}
	return k.doubts.pause(time.Now())
}

// widen lets the room hold more than its window for a while. rs.mu is held.
func (rs *roomState) widen() {
	k := rs.kept
	k.wideAt = ticks()
	if !k.wide {
		k.wide = true
		rs.hub.janitor.narrowLater(rs)
	}
}

// narrow ends what widen began, if it has not been needed for long enough, and
// reports whether it did.
func (rs *roomState) narrow() bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	k := rs.kept
	if k.busy && !k.waiting || len(k.requests.list) > 0 {
		k.wideAt = ticks()
	}
	if k.pushedAt != 0 && time.Duration(ticks()-k.pushedAt) >= wideTime {
		k.pushedAt = 0
		for ms := rs.members; ms != nil; ms = ms.next {
			ms.place.behind.CompareAndSwap(pushed, within) // it has had the time to come back
		}
	}
	if time.Duration(ticks()-k.wideAt) < wideTime {
		return false
	}
	k.wide, k.pages = false, nil
	k.tail.cut(rs.window(), false)
	rs.log.Widen(false)
	return true
}

// catchUp reads a page of what the log lacks, and has the next one read when it is
// the room's turn again, until the log lacks nothing. When the backend does not
// answer it is called again, after the delay.
func (h *Hub) catchUp(one *reading, rs *roomState, life int, delay time.Duration) {
	k := rs.kept
	rs.mu.Lock()
	if k.life != life {
		rs.mu.Unlock()
		return
	}
	q := adapter.Query{Since: k.pos, Keep: k.keep, Time: time.Now()}
	known := k.known
	if known {
		q.Limit, q.Bytes = pageMessages, catchUpBytes
	}
	k.again, k.waiting = false, false
	if k.dropped {
		k.pending, k.held, k.dropped = nil, 0, false
	}
	k.old = len(k.pending)
	rs.mu.Unlock()

	page, err := h.readPage(one.ctx, rs.channel, q)
	final := errors.Is(err, ErrRefused) || errors.Is(err, ErrClosed)
	if err == nil && known && !history.Progresses(&page, q.Since) {
		err = errNoProgress
		rs.mu.Lock()
		delay, final = k.doubt().vain(time.Now())
		rs.mu.Unlock()
	}
	switch {
	case h.ctx.Err() != nil:
		return
	case final:
		rs.giveUp(life, err)
		return
	case err != nil:
		h.readers.again(one, delay, func(one *reading) { h.catchUp(one, rs, life, min(2*delay, lastRetry)) })
		return
	}
	if known {
		rs.catch(life, &page)
	} else {
		rs.begin(life, &page)
	}
	if known && page.More {
		h.readers.add(func(one *reading) { h.catchUp(one, rs, life, firstRetry) })
		return
	}
	if wait, again := rs.drain(life); again {
		h.readers.again(one, wait, func(one *reading) { h.catchUp(one, rs, life, firstRetry) })
	}
}

// catch puts a page into the log, as fast as it can: members that keep up find it
// there, since the log is wide meanwhile, and others fall out of it as in live
// traffic.
func (rs *roomState) catch(life int, page *adapter.Page) {
	k := rs.kept
	var gap roomlog.Gap
	var since adapter.Position // where the log was
	for i, f := range page.Frames {
		b := openKept(f)
		rs.mu.Lock()
		if k.life != life {
			rs.mu.Unlock()
			return
		}
		if i == 0 {
			rs.widen()
			rs.log.Widen(true)
			since = k.pos
			gap = rs.judge(page)
		}
		gap.Unknown = rs.enter(page, f.At.Epoch) || gap.Unknown
		gap = rs.trim(gap, b.first-1)
		before := k.pos.Offset
		w := rs.follow(&b, gap)
		gap = roomlog.Gap{}
		rs.hub.stats.recovered.Add(k.pos.Offset - before)
		rs.mu.Unlock()
		w.run(rs.hub)
	}
	rs.mu.Lock()
	var w wakeups
	if k.life == life && len(page.Frames) == 0 {
		since = k.pos
		gap = rs.judge(page)
	}
	rs.excuse()
	if k.life == life && !page.More {
		gap.Unknown = rs.enter(page, page.Head.Epoch) || gap.Unknown
		if page.Head.Before(since) {
			k.pos, k.began = k.goBack(page.Head), adapter.Position{}
		} else {
			gap = rs.trim(gap, page.Head.Offset)
			k.pos = page.Head
		}
		k.before, k.blind = page.Before, false
		if !gap.IsZero() {
			k.tail.reset(k.pos)
			w = rs.append(gap, nil)
		}
	}
	rs.mu.Unlock()
	w.run(rs.hub)
}

// catchesUp reports whether the log gets what was missing, as fast as it comes.
// rs.mu is held.
func (rs *roomState) catchesUp() bool { return rs.kept != nil && rs.kept.busy && !rs.kept.waiting }

// excuse notes which members fell out of the window because the hub has caught
// up: whatever its Overflow says, they get the rest from the history if they
// come back for it soon. rs.mu is held.
func (rs *roomState) excuse() {
	if rs.overflow() == Skip { // that is what it says
		return
	}
	k, oldest := rs.kept, rs.log.OldestKept()
	for ms := rs.members; ms != nil; ms = ms.next {
		if ms.cursor.Overrun(oldest) {
			ms.place.behind.CompareAndSwap(within, pushed)
			k.pushedAt = ticks()
		}
	}
}

// drainFrames is how many frames go into the log while its room is locked.
const drainFrames = 64

// drain takes what has waited for the reading. It ends the reading if nothing is
// missing; again means that there is to be another one, after a wait.
func (rs *roomState) drain(life int) (wait time.Duration, again bool) {
	k := rs.kept
	distrust := false // frames that the history does not have are delivered
	for {
		rs.mu.Lock()
		if k.life != life {
			rs.mu.Unlock()
			return 0, false
		}
		var ws []wakeups
		if k.lost && !k.dropped { // it is told before what has come since
			k.lost = false
			ws = append(ws, rs.append(roomlog.Gap{Unknown: true}, nil))
		}
		ws = append(ws, rs.takePending(distrust)...)
		done := false
		switch {
		case k.again || k.dropped:
			again = true
		case len(k.pending) == 0:
			k.pending, k.held, k.busy, done = nil, 0, false, true
			k.torn = k.torn && rs.interrupted
			rs.excuse()
			if k.doubts != nil {
				k.doubts.progress()
			}
			rs.tell()
		case len(ws) >= drainFrames: // there is more to take
		case k.old == 0: // what is missing may have come since the reading began
			wait, again = k.pause(), true
		default:
			wait, distrust = k.doubt().vain(time.Now())
			again = !distrust
		}
		if again && wait > 0 {
			k.waiting = true
			rs.tell()
		}
		rs.mu.Unlock()
		for _, w := range ws {
			w.run(rs.hub)
		}
		if done || again {
			return wait, again
		}
	}
}

// takePending puts into the log what has waited, up to drainFrames. Frames that do
// not fit stay. What comes after those and fits does not wait for them; what has
// no position does, to keep its place. With distrust those that do not fit, and
// were there when the reading began, are delivered all the same. rs.mu is held.
func (rs *roomState) takePending(distrust bool) (ws []wakeups) {
	k := rs.kept
	left, old, misfits := k.pending[:0], 0, 0
	k.compared = true
	for i := range k.pending {
		b := &k.pending[i]
		taken := false
		if len(ws) < drainFrames && (misfits == 0 || !b.at.IsZero()) {
			var w wakeups
			if w, taken = rs.advance(b); !taken && distrust && i < k.old {
				w, taken = rs.unplaced(b), true
			}
			if taken {
				ws = append(ws, w)
				k.held -= b.held
			} else {
				misfits++
			}
		}
		if !taken {
			if i < k.old {
				old++
			}
			left = append(left, *b)
		}
	}
	k.compared = false
	clear(k.pending[len(left):])
	k.pending, k.old = left, old
	return ws
}

// unplaced delivers a frame whose position the history does not have. It may lack
// what was said before, so what publishers' next numbers show to be missing is
// that. The log stays where it is in the history. rs.mu is held.
func (rs *roomState) unplaced(b *keptBatch) wakeups {
	k, d := rs.kept, rs.kept.doubt()
	unknown, skip := b.bad != nil, 0
	if d.beside.Epoch != b.at.Epoch || b.first-1 != d.beside.Offset {
		unknown = true
		rs.in.BeginRun(time.Now())
	}
	d.beside = b.at
	var earlier, gap roomlog.Gap
	sender := ""
	if b.head.Count > 0 {
		v := rs.in.AcceptKept(&b.head, 0, &k.trimmed)
		rs.hub.stats.repeated.Add(uint64(v.Repeated))
		if v.Repeated == b.count() {
			return wakeups{}
		}
		earlier, gap = rs.gaps(&v)
		skip, sender = v.Skip, v.Sender
	}
	gap.Unknown = gap.Unknown || unknown
	var u unpacker
	b.unpack(&u, rs.hub, skip, sender) // without positions
	return rs.appendBatch(earlier, gap, &u, 0, 0)
}
