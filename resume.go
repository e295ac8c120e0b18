package fanout

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"
	"unique"

	"github.com/fanoutgo/fanout/internal/roomlog"
)

// A resumption is a Resume that has not put its member into the room yet, or a
// member that fell out of the window and is to have the rest from the history.
// Guarded by roomState.mu.
type resumption struct {
	since Position // the backend's
	read  *flight  // what was read for it, nil: nothing yet
	again int      // times that it was read in vain
}

// A backlog is what a member that has resumed gets before what is in the log.
// Guarded by Member.walk.
type backlog struct{ parts []part }

// A part is some messages, and what is missing before them. The messages are
// shared with others: read only.
type part struct {
	gap     roomlog.Gap
	entries []entry
}

// add appends messages after a gap.
func (b *backlog) add(gap roomlog.Gap, entries []entry) {
	if len(entries) > 0 || !gap.IsZero() {
		b.parts = append(b.parts, part{gap, entries})
	}
}

// A flight is a reading of a room's history that all share who need it at the
// time. Who needs more waits for the next one, which reads enough for all of
// those. While it is under way its fields are the reader's, but for since, and
// waiters, which roomState.mu guards.
type flight struct {
	since   Position // zero: all that is kept
	waiters int
	done    chan struct{} // closed when the rest is there

	last    Position // up to which it has been read, if begun
	begun   bool
	from    Position // what is read comes after this
	page    Page     // without frames: where the history stood
	entries []entry  // contiguous from after from to page.Head
	times   []int64
	err     error
}

// resume makes ms a member of the room at the place that it asks for. It is
// false if the history has to be read first, or again: see fetch. rs.mu is held;
// the hub follows.
func (rs *roomState) resume(ms *membership) (done bool, err error) {
	k, p := rs.kept, ms.place
	r := p.resuming
	if k.pos.Before(r.since) && r.read != nil && r.read.page.has(r.since) {
		// We lag behind the hub that it comes from. What we miss until then is not
		// missing for it.
		rs.read()
		r.read = nil
		return false, nil
	}
	if k.blind { // what is between the log and the next frame is in the history, if that can be read by now
		if err := k.err; err != nil && r.again > 0 {
			return false, err
		}
		r.again++
		rs.read()
		return false, nil
	}
	b, err := k.since(r)
	if b == nil {
		return false, err
	}
	if len(b.parts) > 0 {
		p.backlog = b
		p.behind.Store(true)
	}
	p.resuming = nil
	rs.open(ms)
	if r.since.Before(k.pos) || r.since == k.pos {
		p.after = r.since.public(k.mark)
		p.last = p.after
	} // else the history has gone back behind it, and what comes is new
	return true, nil
}

// refill gives a member that fell out of the window what it has missed, from the
// history. Meanwhile the member receives from its other rooms.
func (rs *roomState) refill(ms *membership) {
	ctx, cancel := context.WithCancelCause(rs.hub.ctx)
	defer cancel(nil)
	rs.mu.Lock()
	ms.waiting().giveUp = cancel // when the member leaves
	rs.mu.Unlock()
	if err := rs.awaitRefill(ctx, ms); err != nil {
		ms.member.walk.Lock()
		ms.place.plain = true
		ms.member.walk.Unlock()
		rs.hub.log.warn("fanout: history cannot be read, a member that lagged has missed messages",
			"room", rs.name, "error", err)
	}
	rs.mu.Lock()
	ms.place.waits = nil
	rs.mu.Unlock()
	ms.member.enqueue(ms) // from here on another refill may begin
}

// awaitRefill returns when there is something to read or the member has left, or
// with an error if the history cannot be read.
func (rs *roomState) awaitRefill(ctx context.Context, ms *membership) error {
	ms.member.walk.Lock()
	r := &resumption{since: Position{Epoch: ms.place.last.Epoch >> markBits, Offset: ms.place.last.Offset}}
	ms.member.walk.Unlock()
	for {
		done, wait, err := rs.tryRefill(ms, r)
		switch {
		case done:
			return nil
		case err != nil:
		case wait == nil:
			err = rs.fetch(ctx, ms, r)
		default:
			select {
			case <-wait:
			case <-ctx.Done():
			case <-ms.member.Done():
			}
		}
		if errors.Is(err, ErrClosed) {
			<-ctx.Done() // the hub is about to end the member
		}
		if ctx.Err() != nil || ms.left.Load() || ms.member.endError() != nil {
			return nil // who receives sees it
		}
		if err != nil {
			return err
		}
	}
}

// tryRefill is refill without waiting: if it is not done, wait tells when to try
// again, and nil means that the history has to be read.
func (rs *roomState) tryRefill(ms *membership, r *resumption) (done bool, wait <-chan struct{}, err error) {
	ms.member.walk.Lock()
	defer ms.member.walk.Unlock()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if ms.left.Load() {
		return true, nil, nil
	}
	if !rs.follows() {
		if rs.kept.err != nil {
			return false, nil, rs.kept.err
		}
		return false, rs.whenChanged(), nil
	}
	b, err := rs.kept.since(r)
	if b == nil {
		return false, nil, err
	}
	// What was passed over and is not in the backlog is missing: what has been
	// trimmed, what had no position, what was missing before.
	gap := ms.cursor.ToEnd(ms.opened)
	for i := range b.parts {
		gap.Missed -= len(b.parts[i].entries)
		b.parts[i].gap.Missed = 0 // it is in the sum
	}
	gap.Missed = max(0, gap.Missed)
	all := &backlog{}
	all.add(gap, nil)
	for _, part := range b.parts {
		all.add(part.gap, part.entries)
	}
	if len(all.parts) > 0 {
		ms.place.backlog = all
	}
	return true, nil, nil
}

// since returns what comes after a place up to where the log ends. It is nil if
// the history has to be read first, or again. The lock of the room is held.
func (k *retained) since(r *resumption) (*backlog, error) {
	if entries, ok := k.tail.since(r.since, k.pos, k.keep); ok {
		b := new(backlog)
		b.add(roomlog.Gap{}, entries)
		return b, nil
	}
	b := new(backlog)
	if r.read == nil {
		return nil, nil
	}
	if done, err := k.assemble(b, r); !done {
		return nil, err
	}
	return b, nil
}

// assemble makes a backlog of what was read, and of the tail after that. It is
// false if they do not meet: the room is so busy that the tail has moved on.
func (k *retained) assemble(b *backlog, r *resumption) (done bool, err error) {
	f := r.read
	if ahead := f.page.Head.Before(r.since); ahead && r.again == 0 {
		// It may have been said after the reading had begun.
		r.read = nil
		r.again++
		return false, nil
	} else if ahead && r.since.Epoch == f.page.Head.Epoch {
		return false, fmt.Errorf("%w: %v is ahead of the room's history, which is at %v",
			ErrInvalidPosition, r.since.public(k.mark), f.page.Head.public(k.mark))
	}
	j := sort.Search(len(f.entries), func(i int) bool { return k.pos.Before(f.entries[i].private()) })
	f.split(b, r.since, f.entries[:j:j])
	if f.page.Head.Before(k.pos) {
		rest, ok := k.tail.since(f.page.Head, k.pos, Retention{Messages: maxRetained, Age: maxAge})
		if !ok && (!f.page.Head.IsZero() || r.again == 0) {
			r.read = nil
			r.again++
			return false, nil
		}
		b.add(roomlog.Gap{}, rest)
	}
	return true, nil
}

// split adds what comes after a position to a backlog, with gaps at the places
// where something is missing, or may be. Who comes for the first time has missed
// nothing.
func (f *flight) split(b *backlog, since Position, entries []entry) {
	a := f.page.after(since)
	gap := roomlog.Gap{Missed: a.missed, Unknown: a.lost}
	epoch := a.epoch
	entries = entries[sort.Search(len(entries), func(i int) bool { return since.Before(entries[i].private()) }):]
	if a.lost && len(entries) > 0 {
		epoch = entries[0].private().Epoch
	}
	for len(entries) > 0 {
		next := entries[0].private().Epoch
		n := sort.Search(len(entries), func(i int) bool { return entries[i].private().Epoch > next })
		gap.Unknown = gap.Unknown || !since.IsZero() && !f.page.whole(epoch, next, 0)
		b.add(gap, entries[:n:n])
		gap, epoch, entries = roomlog.Gap{}, next, entries[n:]
	}
	gap.Unknown = gap.Unknown || !since.IsZero() && !f.page.whole(epoch, f.page.Head.Epoch, 0)
	b.add(gap, nil)
}

// fetch waits until the room's history has been read for a resumption, by
// whomever.
func (rs *roomState) fetch(ctx context.Context, ms *membership, r *resumption) error {
	rs.mu.Lock()
	if !rs.follows() {
		rs.mu.Unlock()
		return nil
	}
	k, since := rs.kept, r.since
	if k.keep.Messages <= rs.hub.opts.Window.Messages {
		since = Position{} // the tail can hold it all, for those who come later
	}
	again := r.again
	if again > 0 { // the room is very busy
		moved := ms.whenMoved()
		rs.mu.Unlock()
		over := make(chan struct{})
		timer := time.AfterFunc(min(time.Duration(again)*firstRetry, lastRetry), func() { close(over) })
		err := ms.wait(ctx, over, moved)
		timer.Stop()
		if err != nil || ms.left.Load() {
			return err
		}
		rs.mu.Lock()
	}
	if b, err := k.since(r); b != nil || err != nil { // it has come meanwhile
		rs.mu.Unlock()
		return err
	}
	f := rs.board(since)
	f.waiters++
	moved := ms.whenMoved()
	rs.mu.Unlock()
	defer func() {
		rs.mu.Lock()
		f.waiters--
		rs.mu.Unlock()
	}()
	if err := ms.wait(ctx, f.done, moved); err != nil {
		return err
	}
	select {
	case <-f.done:
	default:
		return nil // the caller sees that the member has left
	}
	switch {
	case errors.Is(f.err, ErrRefused), errors.Is(f.err, ErrClosed):
		return f.err
	case f.err != nil: // those who had asked have gone; ask again
		return nil
	}
	rs.mu.Lock()
	r.read = f
	rs.mu.Unlock()
	return nil
}

// board returns the flight that brings what comes after since: the one under
// way, or the next. rs.mu is held.
func (rs *roomState) board(since Position) *flight {
	k := rs.kept
	switch {
	case k.flight == nil:
		k.flight = &flight{since: since, done: make(chan struct{})}
		f := k.flight
		rs.hub.readers.add(func() { rs.fly(f, firstRetry) })
		return f
	case !since.Before(k.flight.since):
		return k.flight
	case k.next == nil:
		k.next = &flight{since: since, done: make(chan struct{})}
	case since.Before(k.next.since):
		k.next.since = since
	}
	return k.next
}

// fly reads for a flight, lets the tail have it, and begins the next. When the
// backend does not answer it is called again, after the delay.
func (rs *roomState) fly(f *flight, delay time.Duration) {
	h, k := rs.hub, rs.kept
	again := false
	if again, f.err = h.readAll(rs, f); again {
		h.readers.later(delay, func() { rs.fly(f, min(2*delay, lastRetry)) })
		return
	}
	rs.mu.Lock()
	if f.err == nil && k.known {
		k.tail.extend(f, k.pos, h.opts.Window)
	}
	k.flight, k.next = k.next, nil
	if next := k.flight; next != nil {
		h.readers.add(func() { rs.fly(next, firstRetry) })
	}
	rs.mu.Unlock()
	close(f.done)
}

// readAll reads what is kept after f.since, while anybody waits for it. Again
// means that it is to go on later.
func (h *Hub) readAll(rs *roomState, f *flight) (again bool, err error) {
	k := rs.kept
	if !f.begun {
		f.last = f.since
	}
	for {
		page, err := h.readPage(h.ctx, rs.channel, Query{Since: f.last, Limit: pageMessages, Keep: k.keep, Time: time.Now()})
		switch {
		case err == nil:
		case h.ctx.Err() != nil:
			return false, ErrClosed
		case errors.Is(err, ErrRefused), errors.Is(err, ErrClosed), !rs.awaited(f):
			return false, err
		default:
			return true, nil
		}
		f.add(h, k, &page, f.last, !f.begun)
		if !page.More || len(page.Frames) == 0 {
			return false, nil
		}
		f.last, f.begun = page.Frames[len(page.Frames)-1].At, true
	}
}

func (rs *roomState) awaited(f *flight) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return f.waiters > 0
}

// add appends a page that comes after since. If it does not join on, because
// what was between has been trimmed meanwhile or the history has changed, it
// takes the place of what was there.
func (f *flight) add(h *Hub, k *retained, page *Page, since Position, first bool) {
	a := page.after(since)
	joins := page.has(since) && a.missed == 0
	if first || !joins {
		f.from, f.entries, f.times = since, nil, nil
		if !joins {
			f.from = Position{page.Head.Epoch, a.from}
			if len(page.Frames) > 0 {
				f.from.Epoch = page.Frames[0].At.Epoch
			}
		}
		f.page = Page{Head: page.Head, Before: page.Before, First: page.First}
	} else {
		// The first page says what was trimmed before, the last where it ends.
		f.page.Head, f.page.Before = page.Head, page.Before
	}
	for _, frame := range page.Frames {
		b, sender := openKept(frame), ""
		if b.head.Count > 0 {
			sender = unique.Make(hubID(b.head.Hub)).Value()
		}
		sent := b.sent()
		var u unpacker
		b.unpackKept(&u, h, k, 0, sender)
		for u.read() {
			if e := u.entry(); !e.volatile && e.position.Offset > a.from {
				f.entries = append(f.entries, e)
				f.times = append(f.times, sent)
			}
		}
	}
	if page.More && len(page.Frames) > 0 {
		f.page.Head = page.Frames[len(page.Frames)-1].At
	}
}
