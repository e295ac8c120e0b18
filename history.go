package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/follow"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/work"
)

// A roomHistory is the history of a room as this hub has it. It is part of a
// roomState, whose lock guards all that changes.
type roomHistory struct {
	keep Retention // like mark never changed
	mark uint64    // of the room, in the epochs that users see

	follower follow.Follower[batch.Kept]

	store replay.Store[item.Entry] // for members that come from behind; its times are ticks
	ages  bool                     // the janitor has it expire: see agingRooms
	// pushedAt is when the hub last pushed members out of the window by
	// catching up; see ticks. 0: none is excused for that.
	pushedAt int64
}

const (
	firstRetry = backoff.First
	lastRetry  = backoff.Max

	// noProgressWait is the least wait after a reading of a history that
	// announces more and gives nothing new.
	noProgressWait = 50 * time.Millisecond
)

// forgetHistory is called when the subscription of the room has ended.
func (rs *roomState) forgetHistory() {
	rs.mu.AssertHeld()
	k := rs.kept
	k.follower.Unsubscribed()
	k.store.Forget()
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

// read has the history read, from the last position on.
func (rs *roomState) read() {
	rs.mu.AssertHeld()
	rs.readHistory(rs.kept.follower.Read())
}

// readHistory begins a reading that the follower wants.
func (rs *roomState) readHistory(read follow.Read) {
	rs.mu.AssertHeld()
	if !read.Due {
		return
	}
	h, generation := rs.hub, rs.kept.follower.Generation()
	h.readers.AddAfter(read.After, func(one *work.Task) { h.catchUp(one, rs, generation, firstRetry) })
}

// catchUp reads a page of what the log lacks, and has the next one read when it
// is the room's turn again, until the log lacks nothing. When the backend does
// not answer it is called again, after the delay.
func (h *Hub) catchUp(one *work.Task, rs *roomState, generation int, delay time.Duration) {
	k := rs.kept
	rs.mu.Lock()
	q, ok := k.follower.Query(generation)
	rs.mu.Unlock()
	if !ok {
		return
	}
	q.Keep, q.Time = k.keep, time.Now()
	head := q.Limit == 0
	page, err := h.readPage(one.Context(), rs.channel, q)
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
		h.readers.Again(one, delay, func(one *work.Task) { h.catchUp(one, rs, generation, min(2*delay, lastRetry)) })
		return
	case head:
		rs.beginAt(generation, &page)
	default:
		rs.putPage(generation, &page)
		if page.More {
			h.readers.Add(func(one *work.Task) { h.catchUp(one, rs, generation, firstRetry) })
			return
		}
	}
	if again, wait := rs.drain(generation); again {
		h.readers.Again(one, wait, func(one *work.Task) { h.catchUp(one, rs, generation, firstRetry) })
	}
}

// beginAt notes where a room stands that has just been subscribed.
func (rs *roomState) beginAt(generation int, page *adapter.Page) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if f := &rs.kept.follower; f.Current(generation) {
		rs.kept.store.Reset(f.Head(page))
	}
}

// putPage puts a page into the log, as fast as it can: members that keep up
// find it there, since the log is wide meanwhile, and others fall out of it as
// in live traffic.
func (rs *roomState) putPage(generation int, page *adapter.Page) {
	f, p := &rs.kept.follower, follow.NewPage(page)
	for i, frame := range page.Frames {
		now := time.Now()
		var b batch.KeptFrame
		_ = batch.OpenKept(&b, frame, ticksAt(now)) // the follower reports one that cannot be read
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

// drain puts into the log what was held during a reading, a few frames at a
// time, and ends the reading if nothing is missing. Otherwise there is to be
// another one, after a wait.
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

// putAll is put for frames that were held.
func (rs *roomState) putAll(held []follow.Held[batch.Kept]) []wakeups {
	rs.mu.AssertHeld()
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
func (rs *roomState) catchesUp() bool {
	rs.mu.AssertHeld()
	return rs.kept != nil && rs.kept.follower.CatchesUp()
}

// history checks a position that a user gives, and makes it the backend's.
func (rs *roomState) history(since Position) (adapter.Position, error) {
	switch {
	case rs.invalid() != nil:
		return adapter.Position{}, rs.invalid()
	case rs.kept == nil:
		return adapter.Position{}, fmt.Errorf("%w: Options.Room gives it no Retain", ErrNoHistory)
	}
	return since.of(rs.kept.mark)
}

// past returns messages after since, as Room.History does. It asks the backend
// also where the hub has them: what others have published may not be here yet.
func (rs *roomState) past(ctx context.Context, since adapter.Position, limit int) ([]Message, error) {
	if _, ok := ctx.Deadline(); !ok {
		var hold deadline.Hold
		ctx, hold = rs.hub.publishes.Bound(ctx)
		defer hold.Release()
	}
	list := replay.NewListing[item.Entry](since, limit)
	for done := false; !done; {
		at, limit := list.Next()
		read, err := rs.ask(ctx, at, limit)
		if err != nil {
			return nil, err
		}
		if list.Ahead(read.Head) {
			return nil, rs.ahead(since, read.Head)
		}
		done = list.Add(rs.newPage(at, &read))
	}
	messages := rs.messages(list.Items())
	if gap := list.Gap(); !gap.IsZero() {
		return messages, &GapError{Room: rs.name, Missed: gap.Missed, Unknown: gap.Unknown}
	}
	return messages, nil
}

// ahead is the error for a position that nobody can have been given.
func (rs *roomState) ahead(at, head adapter.Position) error {
	return fmt.Errorf("%w: %v is ahead of the room's history, which is at %v",
		ErrInvalidPosition, public(at, rs.kept.mark), public(head, rs.kept.mark))
}

// ask reads a page, and again while the backend cannot be reached or announces
// more without giving it. A limit of 0 or less is none.
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
		backoff.Sleep(ctx, delay)
		delay = min(2*delay, lastRetry)
		if ctx.Err() != nil {
			return page, rs.hub.withHealth(fmt.Errorf("%w (last: %w)", context.Cause(ctx), err))
		}
	}
}

// messages makes messages of entries.
func (rs *roomState) messages(entries []item.Entry) []Message {
	list := make([]Message, len(entries))
	for i, e := range entries {
		list[i] = Message{Room: rs.name, Data: e.Data, Sender: e.Sender, Position: public(e.At, rs.kept.mark)}
	}
	return list
}

// isWhole reports whether no message that was published earlier can still come
// into the log.
func (rs *roomState) isWhole() bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.kept == nil || rs.follows()
}
