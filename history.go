package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/follow"
	"github.com/fanoutgo/fanout/internal/history"
)

// A retained is the history of a room as this hub has it. It is part of a
// roomState, whose lock guards all that changes.
type retained struct {
	keep Retention // like mark never changed
	mark uint64    // of the room, in the epochs that users see

	follower follow.Follower[keptBatch]

	requests requests // of members that come from behind
	tail     tail
	pages    []*page // read lately for members that come from behind
	ages     bool    // the janitor knows that there is a tail: see agingTails

	// wide: the history is read, or was until wideAt (see ticks): the room holds
	// more than its window, so that members meet what has come meanwhile.
	wide   bool
	wideAt int64
	// pushedAt is when the hub last pushed members out of the window by catching
	// up; see ticks. 0: none is excused for that.
	pushedAt int64
}

const (
	firstRetry = backoff.First
	lastRetry  = backoff.Max

	// noProgressWait is the least wait after a reading of a history that
	// announces more and gives nothing new.
	noProgressWait = 50 * time.Millisecond
)

// A keptBatch is a batch of a room with a history.
type keptBatch struct {
	batch
	kept int64 // when it was kept, by our own clock: see ticks
}

// A keptFrame is a frame of a room with a history, and its place there.
type keptFrame = follow.Frame[keptBatch]

// forget is called when the room is not subscribed any more. rs.mu is held.
func (k *retained) forget() {
	k.follower.Unsubscribed()
	k.tail, k.pages = tail{}, nil
}

// openKept checks a frame that has a position, which is believed. It says what is
// wrong with one that cannot be read.
func openKept(f adapter.KeptFrame, now int64) (keptFrame, error) {
	var b batch
	err := b.open(f.Frame)
	if n := uint64(b.count()); err == nil && n > f.At.Offset {
		err = fmt.Errorf("%d messages that end at offset %d", n, f.At.Offset)
		b = batch{}
	}
	kept := b.frame(len(f.Frame))
	kept.At, kept.First, kept.Unreadable = f.At, f.At.Offset, err != nil
	if err == nil {
		kept.First -= uint64(kept.Messages) - 1
	}
	kept.Body.kept = now - f.Age.Nanoseconds()
	return kept, err
}

// frame returns a batch as a frame of a room with a history, without a place
// there.
func (b *batch) frame(size int) keptFrame {
	return keptFrame{Header: b.head, Messages: b.count(), Size: size + int(unsafe.Sizeof(keptFrame{})), Body: keptBatch{batch: *b}}
}

// unpackKept makes u, which is zero, the unpacker of what comes after the first
// skip messages of a frame, with their positions.
func (k *retained) unpackKept(u *unpacker, h *Hub, b *keptFrame, skip int, sender string) {
	b.Body.unpack(u, h, skip, sender)
	u.at = Position{Epoch: public(b.At, k.mark).Epoch, Offset: b.First + uint64(skip) - 1}
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
	now := time.Now()
	b, err := openKept(f, ticksAt(now))
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
func (rs *roomState) takeKept(b *keptFrame, now time.Time) wakeups {
	a, placed, read := rs.kept.follower.Receive(b, now)
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
		k.tail.reset(a.From)
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

// readPage is one call of the historian.
func (h *Hub) readPage(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	h.stats.reads.Add(1)
	page, err := h.historian.History(ctx, channel, q)
	if err == nil {
		err = history.Check(&page, q.Since, believedEpoch)
	}
	return page, err
}

// read has the history read, from the last position on. rs.mu is held.
func (rs *roomState) read() { rs.readHistory(rs.kept.follower.Read()) }

// readHistory begins a reading that the follower wants. rs.mu is held.
func (rs *roomState) readHistory(read follow.Read) {
	if !read.Due {
		return
	}
	h, generation := rs.hub, rs.kept.follower.Generation()
	run := func(one *reading) { h.catchUp(one, rs, generation, firstRetry) }
	if read.After > 0 {
		time.AfterFunc(read.After, func() { h.readers.add(run) })
		return
	}
	h.readers.add(run)
}

// catchUp reads a page of what the log lacks, and has the next one read when it is
// the room's turn again, until the log lacks nothing. When the backend does not
// answer it is called again, after the delay.
func (h *Hub) catchUp(one *reading, rs *roomState, generation int, delay time.Duration) {
	k := rs.kept
	rs.mu.Lock()
	q, ok := k.follower.Query(generation)
	rs.mu.Unlock()
	if !ok {
		return
	}
	q.Keep, q.Time = k.keep, time.Now()
	head := q.Limit == 0
	page, err := h.readPage(one.ctx, rs.channel, q)
	final := errors.Is(err, ErrRefused) || errors.Is(err, ErrClosed)
	if err == nil && !head && !history.Progresses(&page, q.Since) {
		err = errNoProgress
		rs.mu.Lock()
		delay, final = k.follower.NoProgress(time.Now())
		rs.mu.Unlock()
	}
	switch {
	case h.ctx.Err() != nil:
		return
	case final:
		rs.readRefused(generation, err)
		return
	case err != nil:
		h.readers.again(one, delay, func(one *reading) { h.catchUp(one, rs, generation, min(2*delay, lastRetry)) })
		return
	case head:
		rs.beginAt(generation, &page)
	default:
		rs.putPage(generation, &page)
		if page.More {
			h.readers.add(func(one *reading) { h.catchUp(one, rs, generation, firstRetry) })
			return
		}
	}
	if again, wait := rs.drain(generation); again {
		h.readers.again(one, wait, func(one *reading) { h.catchUp(one, rs, generation, firstRetry) })
	}
}

// beginAt notes where a room stands that has just been subscribed.
func (rs *roomState) beginAt(generation int, page *adapter.Page) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if f := &rs.kept.follower; f.Current(generation) {
		rs.kept.tail.reset(f.Head(page))
	}
}

// putPage puts a page into the log, as fast as it can: members that keep up find
// it there, since the log is wide meanwhile, and others fall out of it as in live
// traffic.
func (rs *roomState) putPage(generation int, page *adapter.Page) {
	f, p := &rs.kept.follower, follow.NewPage(page)
	for i, frame := range page.Frames {
		now := time.Now()
		b, _ := openKept(frame, ticksAt(now))
		rs.mu.Lock()
		if !f.Current(generation) {
			rs.mu.Unlock()
			return
		}
		if i == 0 {
			rs.widen()
			rs.log.Widen(true)
		}
		a := f.Frame(p, &b, now)
		w := rs.put(&a, &b)
		rs.mu.Unlock()
		w.run(rs.hub)
	}
	rs.mu.Lock()
	var w wakeups
	if f.Current(generation) {
		rs.excuse()
		if a := f.PageEnd(p, time.Now()); !a.Gap.IsZero() {
			w = rs.put(&a, nil)
		}
	}
	rs.mu.Unlock()
	w.run(rs.hub)
}

// drain puts into the log what was held during a reading, a few frames at a time,
// and ends the reading if nothing is missing. Otherwise there is to be another
// one, after a wait.
func (rs *roomState) drain(generation int) (again bool, wait time.Duration) {
	f := &rs.kept.follower
	for {
		rs.mu.Lock()
		if !f.Current(generation) {
			rs.mu.Unlock()
			return false, 0
		}
		now := time.Now()
		held, more := f.Drain(now)
		ws := rs.putAll(held)
		step := follow.More
		if !more {
			step, wait = f.Drained(now)
		}
		if step == follow.Done {
			rs.excuse()
		}
		if step == follow.Done || wait > 0 {
			rs.tell()
		}
		rs.mu.Unlock()
		rs.hub.wakeAll(ws)
		if step != follow.More {
			return step == follow.Again, wait
		}
	}
}

// readRefused ends a reading that the backend refuses.
func (rs *roomState) readRefused(generation int, err error) {
	f := &rs.kept.follower
	rs.mu.Lock()
	if !f.Current(generation) {
		rs.mu.Unlock()
		return
	}
	ws := rs.putAll(f.Refused(err, time.Now()))
	rs.tell()
	rs.mu.Unlock()
	rs.hub.wakeAll(ws)
	if !errors.Is(err, ErrClosed) {
		rs.hub.historyUnreadable(rs.name, err)
	}
}

// putAll is put for frames that were held. rs.mu is held.
func (rs *roomState) putAll(held []follow.Held[keptBatch]) []wakeups {
	ws := make([]wakeups, len(held))
	for i := range held {
		ws[i] = rs.put(&held[i].Append, &held[i].Frame)
	}
	return ws
}

func (h *Hub) wakeAll(ws []wakeups) {
	for _, w := range ws {
		w.run(h)
	}
}

// catchesUp reports whether the log gets what was missing, as fast as it comes.
// rs.mu is held.
func (rs *roomState) catchesUp() bool { return rs.kept != nil && rs.kept.follower.CatchesUp() }

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
	if k.follower.CatchesUp() || len(k.requests.list) > 0 {
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

// history checks a position that a user gives, and makes it the backend's.
func (rs *roomState) history(since Position) (adapter.Position, error) {
	switch {
	case rs.invalid != nil:
		return adapter.Position{}, rs.invalid.error
	case rs.kept == nil:
		return adapter.Position{}, fmt.Errorf("%w: Options.Room gives it no Retain", ErrNoHistory)
	}
	return since.of(rs.kept.mark)
}

// past returns messages after since, as Room.History does. It asks the backend
// also where the hub has them: what others have published may not be here yet.
func (rs *roomState) past(ctx context.Context, since adapter.Position, limit int) ([]Message, error) {
	k := rs.kept
	if _, ok := ctx.Deadline(); !ok {
		var hold deadline.Hold
		ctx, hold = rs.hub.publishes.Bound(ctx)
		defer hold.Release()
	}
	var entries []entry
	var info adapter.Page // without frames: the state of the history
	at, missed, absurd := since, 0, false
	for first := true; ; first = false {
		read, err := rs.ask(ctx, at, limit-len(entries))
		if err != nil {
			return nil, err
		}
		if first && since.Epoch == read.Head.Epoch && since.Offset > read.Head.Offset {
			return nil, fmt.Errorf("%w: %v is ahead of the room's history, which is at %v",
				ErrInvalidPosition, public(since, k.mark), public(read.Head, k.mark))
		}
		p := rs.newPage(at, &read)
		if first || p.from != at { // what was between has been trimmed meanwhile, or the history has changed
			entries, missed, absurd, info = nil, 0, false, p.info
		} else { // the first page says what was trimmed before, the last where it ends
			info.Head, info.Before = p.info.Head, p.info.Before
		}
		entries = append(entries, p.entries...)
		for _, bad := range p.bad {
			n, beyond := bad.missedAfter(0)
			missed, absurd = missed+n, absurd || beyond
		}
		at = p.end
		if p.last || (limit > 0 && len(entries) >= limit) {
			if !p.last {
				info.Head = p.end
			}
			break
		}
	}
	messages := rs.messages(entries, limit)
	if a := history.Compare(&info, since); !since.IsZero() || missed > 0 || absurd {
		doubt := absurd || !since.IsZero() && (a.Lost || !history.Whole(&info, a.Epoch, info.Head.Epoch, 0))
		if missed += a.Missed; missed > 0 || doubt {
			return messages, &GapError{Room: rs.name, Missed: missed, Unknown: doubt}
		}
	}
	return messages, nil
}

// ask reads a page, and again while the backend cannot be reached or announces
// more without giving it. A limit of 0
// or less is none.
func (rs *roomState) ask(ctx context.Context, since adapter.Position, limit int) (adapter.Page, error) {
	delay := firstRetry
	if limit <= 0 || limit > follow.PageMessages {
		limit = follow.PageMessages
	}
	for {
		page, err := rs.hub.readPage(ctx, rs.channel, adapter.Query{Since: since, Limit: limit, Keep: rs.kept.keep, Time: time.Now()})
		if err == nil && !history.Progresses(&page, since) {
			err, delay = errNoProgress, max(delay, noProgressWait)
		}
		if err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrClosed) {
			return page, err
		}
		sleep(ctx, delay)
		delay = min(2*delay, lastRetry)
		if ctx.Err() != nil {
			return page, rs.hub.withHealth(fmt.Errorf("%w (last: %w)", context.Cause(ctx), err))
		}
	}
}

// messages makes messages of entries.
func (rs *roomState) messages(entries []entry, limit int) []Message {
	if limit > 0 && len(entries) > limit {
		entries = entries[:limit]
	}
	list := make([]Message, len(entries))
	for i, e := range entries {
		list[i] = Message{Room: rs.name, Data: e.data, Sender: e.sender, Position: e.position}
	}
	return list
}

// historyUnreadable complains of a history that cannot be read.
func (h *Hub) historyUnreadable(room string, err error) {
	if h.refused.first() {
		h.log.error("fanout: history cannot be read, what was missed is reported as a gap (said once a minute, for all rooms)",
			"room", room, "error", err)
	}
}

// An occasionally says when something is worth a line in the log again.
type occasionally struct{ last atomic.Int64 }

const complainEvery = time.Minute

// first reports true the first time, and again a while later.
func (o *occasionally) first() bool {
	last, now := o.last.Load(), ticks()|1 // 0 is never
	return (last == 0 || time.Duration(now-last) >= complainEvery) && o.last.CompareAndSwap(last, now)
}
