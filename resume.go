package fanout

import (
	"context"
	"errors"
	"time"
	"unique"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/work"
)

// A memberReplay is a member that comes from behind; see package replay. A
// member that waits for a part waits alone. It has met the log when a part ends
// where the log stands: its cursor is put there in the same step.
//
// Until the membership is joined room.mu guards it, then Member.walk.
type memberReplay = replay.Replay[item.Entry]

// assemble gives a replay its next part, or says what is needed for it, or that
// it cannot go on.
func (r *room) assemble(rp *memberReplay) (replay.Verdict, error) {
	r.mu.AssertHeld()
	k, f := r.kept, &r.kept.follower
	log := replay.Log{At: f.Position(), Known: f.Known(), Blind: f.Unreadable(), Refused: f.Err() != nil}
	v := k.store.Assemble(rp, log, k.keep, ticks())
	switch v {
	case replay.AheadOfHistory:
		return v, r.ahead(rp.At(), rp.Head())
	case replay.Unreadable:
		return v, f.Err()
	}
	return v, nil
}

// start puts a member that resumes into the room, when it has its first part.
func (r *room) start(ms *membership, rp *memberReplay, since adapter.Position) {
	r.mu.AssertHeld()
	r.open(ms)
	p, k := ms.place, r.kept
	pos := k.follower.Position()
	rp.Begin(pos)
	if !pos.Before(since) {
		p.after = public(since, k.mark)
		p.last = p.after
	} // else the history has gone back behind it, and what comes is new
	if rp.Met() && rp.Empty() {
		p.replay = nil
		return
	}
	p.behind.Store(follows)
}

// refill returns the replay of a member that fell out of the window.
func (ms *membership) refill() *memberReplay {
	ms.member.walk.AssertHeld()
	return replay.Refill[item.Entry](ms.place.last.private())
}

// refills reports whether the gap before the cursor of ms is its own, and the
// history has what is missing there.
func (m *Member) refills(ms *membership) bool { return ms.cursor.Cut() && m.mayRefill(ms) }

// mayRefill reports whether what falls out of the window is to come from the
// history.
func (m *Member) mayRefill(ms *membership) bool {
	m.walk.AssertHeld()
	p := ms.place
	return p != nil && ms.room.kept != nil && (ms.room.overflow() == Skip || p.behind.Load() != within) && !p.plain
}

// takeGapsInOrder is takeGaps for a room with a history. It notes how far the
// member has come there, so that the history is not asked again for what the
// member was told to have missed. Nothing is appended meanwhile.
func (m *Member) takeGapsInOrder(ms *membership) (sum roomlog.Gap, slow bool) {
	r := ms.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.mayRefill(ms) && ms.cursor.FallBack() {
		return sum, false
	}
	sum, slow = m.takeGaps(ms)
	last := r.kept.follower.Position()
	if next, ok := ms.cursor.Find(func(e *item.Entry) bool { return !e.At.IsZero() }); ok {
		last = adapter.Position{Epoch: next.At.Epoch, Offset: next.At.Offset - 1}
	}
	ms.place.last = public(last, r.kept.mark)
	return sum, slow
}

// advance gives the member its next part, if it is there. It is not ok if that
// has to be waited for: see bring.
func (ms *membership) advance() (ok bool) {
	ms.member.walk.AssertHeld()
	r := ms.room
	r.mu.Lock()
	defer r.mu.Unlock()
	v, _ := r.tryAdvance(ms)
	return v == replay.Complete
}

// tryAdvance gives the member its next part, and puts its cursor where the part
// meets the log.
func (r *room) tryAdvance(ms *membership) (replay.Verdict, error) {
	ms.member.walk.AssertHeld()
	r.mu.AssertHeld()
	rp := ms.place.replay
	v, err := r.assemble(rp)
	if v == replay.Complete && rp.Met() {
		rp.Meet(ms.cursor.ToEnd(ms.opened))
	}
	return v, err
}

// bring waits until the member has its next part, while it receives from its
// other rooms.
func (r *room) bring(ms *membership) {
	ctx, cancel := context.WithCancelCause(r.hub.ctx)
	defer cancel(nil)
	r.mu.Lock()
	ms.waiting().cancel = cancel // when the member leaves
	r.mu.Unlock()
	err := r.awaitPart(ctx, ms)
	if errors.Is(err, ErrClosed) {
		<-ctx.Done() // the hub is about to end the member
	}
	if err != nil && ctx.Err() == nil && !ms.left.Load() && ms.member.endError() == nil {
		r.abandon(ms)
		r.hub.historyUnreadable(r.name, err)
	}
	r.mu.Lock()
	ms.place.waits = nil
	r.mu.Unlock()
	ms.member.enqueue(ms) // from here on it may wait for another part
}

// awaitPart returns when the member has its next part or has left, or with an
// error if the history cannot be read.
func (r *room) awaitPart(ctx context.Context, ms *membership) error {
	for {
		ms.member.walk.Lock()
		r.mu.Lock()
		rp := ms.place.replay
		if ms.left.Load() || rp == nil {
			r.mu.Unlock()
			ms.member.walk.Unlock()
			return nil
		}
		v, err := r.tryAdvance(ms)
		var changed <-chan struct{}
		if v == replay.LogBehind {
			changed = r.awaitLog()
		}
		r.mu.Unlock()
		ms.member.walk.Unlock()
		switch {
		case err != nil || v == replay.Complete:
			return err
		case v == replay.NeedsReading:
			err = r.fetch(ctx, ms, rp)
		default:
			select {
			case <-changed:
			case <-ctx.Done():
			case <-ms.member.Done():
			}
		}
		if err != nil || ctx.Err() != nil || ms.member.endError() != nil {
			return err
		}
	}
}

// awaitLog has the log catch up, and returns a channel that is closed when that
// has changed.
func (r *room) awaitLog() <-chan struct{} {
	r.mu.AssertHeld()
	if r.follows() {
		r.read()
	}
	return r.whenChanged()
}

// abandon ends a replay whose history cannot be read: the member goes on with
// the log, and the rest is a gap.
func (r *room) abandon(ms *membership) {
	ms.member.walk.Lock()
	defer ms.member.walk.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	rp := ms.place.replay
	if rp == nil || ms.left.Load() {
		return
	}
	if inWindow := rp.Abandon(r.kept.follower.Position()); inWindow {
		ms.place.replay, ms.place.plain = nil, true
		return
	}
	rp.Meet(ms.cursor.ToEnd(ms.opened))
}

// fetch waits until the room's history has been read for a replay, by whomever.
func (r *room) fetch(ctx context.Context, ms *membership, rp *memberReplay) error {
	r.mu.Lock()
	k := r.kept
	if k.store.Has(rp.At(), k.follower.Position(), k.keep, ticks()) { // it has come meanwhile
		r.mu.Unlock()
		return nil
	}
	q := k.store.Join(rp.At())
	q.Done = make(chan struct{})
	r.widen()
	r.serve(firstRetry)
	moved := ms.whenMoved()
	r.mu.Unlock()
	err := ms.wait(ctx, q.Done, moved)
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-q.Done:
		rp.Deliver(q.Page)
		return q.Err
	default:
		k.store.Leave(q)
		return err // nil: the caller sees that the member has left
	}
}

// serve has the room's history read for the members that wait for it, unless it
// is being read.
func (r *room) serve(delay time.Duration) {
	r.mu.AssertHeld()
	if r.kept.store.Start() {
		r.hub.pool.Add(func(one *work.Task) { r.readForMembers(one, delay) })
	}
}

// readForMembers reads one page for those that wait, and has the next one read
// when it is the room's turn again. When the backend does not answer it is
// asked again, after the delay.
func (r *room) readForMembers(one *work.Task, delay time.Duration) {
	h, k := r.hub, r.kept
	r.mu.Lock()
	since, ok := k.store.Begin(k.keep.Messages <= r.window().Messages)
	generation := k.follower.Generation()
	r.mu.Unlock()
	if !ok {
		return
	}
	q := adapter.Query{Since: since, Limit: replay.PageMessages, Bytes: replay.PageBytes, Keep: k.keep, Time: time.Now()}
	read, err := h.readPage(one.Context(), r.channel, q)
	if err == nil && !history.Progresses(&read, since) {
		err, delay = errNoProgress, max(delay, noProgressWait)
	}
	var p *replay.Page[item.Entry]
	if err == nil {
		p = r.newPage(since, &read)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var served []*replay.Request[item.Entry]
	switch {
	case h.ctx.Err() != nil:
		served = k.store.Fail(ErrClosed)
	case err == nil:
		if k.follower.Current(generation) && k.follower.Known() {
			k.store.Remember(p, k.follower.Position(), replay.Window(r.window()))
			r.expireLater()
		}
		served = k.store.Deliver(p)
		delay = firstRetry
	case errors.Is(err, ErrRefused), errors.Is(err, ErrClosed), errors.Is(err, errNoProgress) && delay >= lastRetry:
		served = k.store.Fail(err)
	default: // the next attempt ends if nobody waits by then
		h.pool.Again(one, delay, func(one *work.Task) { r.readForMembers(one, min(2*delay, lastRetry)) })
		return
	}
	for _, q := range served {
		close(q.Done)
	}
	r.serve(delay)
}

// errNoProgress means that a history announces more and gives nothing new.
var errNoProgress = errors.New("the history announces more, but gives nothing new")

// newPage decodes what the backend has returned for since.
func (r *room) newPage(since adapter.Position, read *adapter.Page) *replay.Page[item.Entry] {
	p, now := replay.NewPage[item.Entry](since, read), ticks()
	for _, f := range read.Frames {
		var b batch.KeptFrame
		err := batch.OpenKept(&b, f, now)
		if err != nil {
			r.hub.malformed(r.channel, err)
		}
		p.Frame(b.First, f.At, err != nil)
		sender := ""
		if b.Header.Count > 0 {
			sender = unique.Make(hubID(b.Header.Hub)).Value()
		}
		var u batch.Unpacker
		batch.UnpackKept(&u, &b, &r.hub.home, 0, sender)
		for u.Read() {
			if !u.Understood() {
				n := u.TakeNotUnderstood()
				r.hub.notUnderstood(r.channel, n)
				p.Miss(n.At)
				continue
			}
			p.Add(u.Entry(), b.Body.Since)
		}
	}
	p.End()
	return p
}

// addRecent keeps messages that go into the log for members that come later.
func (r *room) addRecent(entries []item.Entry, kept int64) {
	r.mu.AssertHeld()
	r.kept.store.Add(entries, kept, replay.Window(r.window()))
	r.expireLater()
}

// excuse notes which members fell out of the window because the hub has caught
// up. Whatever the room's Overflow is, they get the rest from the history if
// they read on before long.
func (r *room) excuse() {
	r.mu.AssertHeld()
	if r.overflow() == Skip { // that is what it says
		return
	}
	k, oldest := r.kept, r.log.OldestKept()
	for ms := range r.members.All {
		if ms.cursor.Overrun(oldest) {
			ms.place.behind.CompareAndSwap(within, pushed)
			k.pushedAt = ticks()
		}
	}
}

// widen lets the room hold more than its window for a while.
func (r *room) widen() {
	r.mu.AssertHeld()
	if r.kept.store.Widen(ticks()) {
		r.hub.janitor.narrowLater(r)
	}
}

// narrow ends what widen began, if it has not been needed for long enough, and
// reports whether it did.
func (r *room) narrow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, now := r.kept, ticks()
	if k.pushedAt != 0 && time.Duration(now-k.pushedAt) >= replay.WideTime {
		k.pushedAt = 0
		for ms := range r.members.All {
			ms.place.behind.CompareAndSwap(pushed, within) // it has had the time to come back
		}
	}
	if !k.store.Narrow(now, k.follower.CatchesUp(), replay.Window(r.window())) {
		return false
	}
	r.log.Widen(false)
	return true
}

// passGap begins to fill the gap before the cursor of ms, or consumes it.
func (m *Member) passGap(ms *membership) error {
	m.walk.AssertHeld()
	if m.refills(ms) {
		ms.place.replay = ms.refill()
		ms.place.behind.Store(follows)
		return nil
	}
	return m.gap(ms)
}
