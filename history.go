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
// room, whose lock guards all that changes.
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
func (r *room) forgetHistory() {
	r.mu.AssertHeld()
	k := r.kept
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
func (r *room) read() {
	r.mu.AssertHeld()
	r.readHistory(r.kept.follower.Read())
}

// readHistory begins a reading that the follower wants.
func (r *room) readHistory(read follow.Read) {
	r.mu.AssertHeld()
	if !read.Due {
		return
	}
	h, generation := r.hub, r.kept.follower.Generation()
	h.pool.AddAfter(read.After, func(one *work.Task) { h.catchUp(one, r, generation, firstRetry) })
}

// catchUp reads a page of what the log lacks, and has the next one read when it
// is the room's turn again, until the log lacks nothing. When the backend does
// not answer it is called again, after the delay.
func (h *Hub) catchUp(one *work.Task, r *room, generation int, delay time.Duration) {
	k := r.kept
	r.mu.Lock()
	q, ok := k.follower.Query(generation)
	r.mu.Unlock()
	if !ok {
		return
	}
	q.Keep, q.Time = k.keep, time.Now()
	head := q.Limit == 0
	page, err := h.readPage(one.Context(), r.channel, q)
	final := errors.Is(err, ErrRefused) || errors.Is(err, ErrClosed)
	if err == nil && !head && !history.Progresses(&page, q.Since) {
		err = errNoProgress
		r.mu.Lock()
		delay, final = k.follower.NoProgress(time.Now())
		r.mu.Unlock()
	}
	switch {
	case h.ctx.Err() != nil:
		return
	case final:
		r.readRefused(generation, err)
		return
	case err != nil:
		h.pool.Again(one, delay, func(one *work.Task) { h.catchUp(one, r, generation, min(2*delay, lastRetry)) })
		return
	case head:
		r.beginAt(generation, &page)
	default:
		r.putPage(generation, &page)
		if page.More {
			h.pool.Add(func(one *work.Task) { h.catchUp(one, r, generation, firstRetry) })
			return
		}
	}
	if again, wait := r.drain(generation); again {
		h.pool.Again(one, wait, func(one *work.Task) { h.catchUp(one, r, generation, firstRetry) })
	}
}

// beginAt notes where a room stands that has just been subscribed.
func (r *room) beginAt(generation int, page *adapter.Page) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := &r.kept.follower; f.Current(generation) {
		r.kept.store.Reset(f.Head(page))
	}
}

// putPage puts a page into the log, as fast as it can: members that keep up
// find it there, since the log is wide meanwhile, and others fall out of it as
// in live traffic.
func (r *room) putPage(generation int, page *adapter.Page) {
	f, p := &r.kept.follower, follow.NewPage(page)
	for i, frame := range page.Frames {
		now := time.Now()
		var b batch.KeptFrame
		_ = batch.OpenKept(&b, frame, ticksAt(now)) // the follower reports one that cannot be read
		r.mu.Lock()
		if !f.Current(generation) {
			r.mu.Unlock()
			return
		}
		if i == 0 {
			r.widen()
			r.log.Widen(true)
		}
		a := f.Frame(p, &b, now)
		w := r.put(&a, &b)
		r.mu.Unlock()
		w.run(r.hub)
	}
	r.mu.Lock()
	var w wakeups
	if f.Current(generation) {
		r.excuse()
		if a := f.PageEnd(p, time.Now()); !a.Gap.IsZero() {
			w = r.put(&a, nil)
		}
	}
	r.mu.Unlock()
	w.run(r.hub)
}

// drain puts into the log what was held during a reading, a few frames at a
// time, and ends the reading if nothing is missing. Otherwise there is to be
// another one, after a wait.
func (r *room) drain(generation int) (again bool, wait time.Duration) {
	f := &r.kept.follower
	for {
		r.mu.Lock()
		if !f.Current(generation) {
			r.mu.Unlock()
			return false, 0
		}
		now := time.Now()
		held, more := f.Drain(now)
		ws := r.putAll(held)
		step := follow.More
		if !more {
			step, wait = f.Drained(now)
		}
		if step == follow.Done {
			r.excuse()
		}
		if step == follow.Done || wait > 0 {
			r.tell()
		}
		r.mu.Unlock()
		r.hub.wakeAll(ws)
		if step != follow.More {
			return step == follow.Again, wait
		}
	}
}

// readRefused ends a reading that the backend refuses.
func (r *room) readRefused(generation int, err error) {
	f := &r.kept.follower
	r.mu.Lock()
	if !f.Current(generation) {
		r.mu.Unlock()
		return
	}
	ws := r.putAll(f.Refused(err, time.Now()))
	r.tell()
	r.mu.Unlock()
	r.hub.wakeAll(ws)
	if !errors.Is(err, ErrClosed) {
		r.hub.historyUnreadable(r.name, err)
	}
}

// putAll is put for frames that were held.
func (r *room) putAll(held []follow.Held[batch.Kept]) []wakeups {
	r.mu.AssertHeld()
	ws := make([]wakeups, len(held))
	for i := range held {
		ws[i] = r.put(&held[i].Append, &held[i].Frame)
	}
	return ws
}

func (h *Hub) wakeAll(ws []wakeups) {
	for _, w := range ws {
		w.run(h)
	}
}

// catchesUp reports whether the log gets what was missing, as fast as it comes.
func (r *room) catchesUp() bool {
	r.mu.AssertHeld()
	return r.kept != nil && r.kept.follower.CatchesUp()
}

// history checks a position that a user gives, and makes it the backend's.
func (r *room) history(since Position) (adapter.Position, error) {
	switch {
	case r.invalid() != nil:
		return adapter.Position{}, r.invalid()
	case r.kept == nil:
		return adapter.Position{}, fmt.Errorf("%w: Options.Room gives it no Retain", ErrNoHistory)
	}
	return since.of(r.kept.mark)
}

// past returns messages after since, as Room.History does. It asks the backend
// also where the hub has them: what others have published may not be here yet.
func (r *room) past(ctx context.Context, since adapter.Position, limit int) ([]Message, error) {
	if _, ok := ctx.Deadline(); !ok {
		var hold deadline.Hold
		ctx, hold = r.hub.publishes.Bound(ctx)
		defer hold.Release()
	}
	list := replay.NewListing[item.Entry](since, limit)
	for done := false; !done; {
		at, limit := list.Next()
		read, err := r.ask(ctx, at, limit)
		if err != nil {
			return nil, err
		}
		if list.Ahead(read.Head) {
			return nil, r.ahead(since, read.Head)
		}
		done = list.Add(r.newPage(at, &read))
	}
	messages := r.messages(list.Items())
	if gap := list.Gap(); !gap.IsZero() {
		return messages, &GapError{Room: r.name, Missed: gap.Missed, Unknown: gap.Unknown}
	}
	return messages, nil
}

// ahead is the error for a position that nobody can have been given.
func (r *room) ahead(at, head adapter.Position) error {
	return fmt.Errorf("%w: %v is ahead of the room's history, which is at %v",
		ErrInvalidPosition, public(at, r.kept.mark), public(head, r.kept.mark))
}

// ask reads a page, and again while the backend cannot be reached or announces
// more without giving it. A limit of 0 or less is none.
func (r *room) ask(ctx context.Context, since adapter.Position, limit int) (adapter.Page, error) {
	delay := firstRetry
	if limit <= 0 || limit > follow.PageMessages {
		limit = follow.PageMessages
	}
	for {
		page, err := r.hub.readPage(ctx, r.channel, adapter.Query{Since: since, Limit: limit, Keep: r.kept.keep, Time: time.Now()})
		if err == nil && !history.Progresses(&page, since) {
			err, delay = errNoProgress, max(delay, noProgressWait)
		}
		if err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrClosed) {
			return page, err
		}
		backoff.Sleep(ctx, delay)
		delay = min(2*delay, lastRetry)
		if ctx.Err() != nil {
			return page, r.hub.withHealth(fmt.Errorf("%w (last: %w)", context.Cause(ctx), err))
		}
	}
}

// messages makes messages of entries.
func (r *room) messages(entries []item.Entry) []Message {
	list := make([]Message, len(entries))
	for i, e := range entries {
		list[i] = Message{Room: r.name, Data: e.Data, Sender: e.Sender, Position: public(e.At, r.kept.mark)}
	}
	return list
}

// isWhole reports whether no message that was published earlier can still come
// into the log.
func (r *room) isWhole() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept == nil || r.follows()
}
