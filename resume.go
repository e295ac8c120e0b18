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
// Until the membership is joined roomState.mu guards it, then Member.walk.
type memberReplay = replay.Replay[item.Entry]

// assemble gives a replay its next part, or says what is needed for it, or that
// it cannot go on.
func (rs *roomState) assemble(r *memberReplay) (replay.Verdict, error) {
	rs.mu.AssertHeld()
	k, f := rs.kept, &rs.kept.follower
	log := replay.Log{At: f.Position(), Known: f.Known(), Blind: f.Unreadable(), Refused: f.Err() != nil}
	v := k.store.Assemble(r, log, k.keep, ticks())
	switch v {
	case replay.AheadOfHistory:
		return v, rs.ahead(r.At(), r.Head())
	case replay.Unreadable:
		return v, f.Err()
	}
	return v, nil
}

// start puts a member that resumes into the room, when it has its first part.
func (rs *roomState) start(ms *membership, r *memberReplay, since adapter.Position) {
	rs.mu.AssertHeld()
	rs.open(ms)
	p, k := ms.place, rs.kept
	pos := k.follower.Position()
	r.Begin(pos)
	if !pos.Before(since) {
		p.after = public(since, k.mark)
		p.last = p.after
	} // else the history has gone back behind it, and what comes is new
	if r.Met() && r.Empty() {
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
	rs := ms.room
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if m.mayRefill(ms) && ms.cursor.FallBack() {
		return sum, false
	}
	sum, slow = m.takeGaps(ms)
	last := rs.kept.follower.Position()
	if next, ok := ms.cursor.Find(func(e *item.Entry) bool { return !e.At.IsZero() }); ok {
		last = adapter.Position{Epoch: next.At.Epoch, Offset: next.At.Offset - 1}
	}
	ms.place.last = public(last, rs.kept.mark)
	return sum, slow
}

// advance gives the member its next part, if it is there. It is not ok if that
// has to be waited for: see bring.
func (ms *membership) advance() (ok bool) {
	ms.member.walk.AssertHeld()
	rs := ms.room
	rs.mu.Lock()
	defer rs.mu.Unlock()
	v, _ := rs.tryAdvance(ms)
	return v == replay.Complete
}

// tryAdvance gives the member its next part, and puts its cursor where the part
// meets the log.
func (rs *roomState) tryAdvance(ms *membership) (replay.Verdict, error) {
	ms.member.walk.AssertHeld()
	rs.mu.AssertHeld()
	r := ms.place.replay
	v, err := rs.assemble(r)
	if v == replay.Complete && r.Met() {
		r.Meet(ms.cursor.ToEnd(ms.opened))
	}
	return v, err
}

// bring waits until the member has its next part, while it receives from its
// other rooms.
func (rs *roomState) bring(ms *membership) {
	ctx, cancel := context.WithCancelCause(rs.hub.ctx)
	defer cancel(nil)
	rs.mu.Lock()
	ms.waiting().giveUp = cancel // when the member leaves
	rs.mu.Unlock()
	err := rs.awaitPart(ctx, ms)
	if errors.Is(err, ErrClosed) {
		<-ctx.Done() // the hub is about to end the member
	}
	if err != nil && ctx.Err() == nil && !ms.left.Load() && ms.member.endError() == nil {
		rs.abandon(ms)
		rs.hub.historyUnreadable(rs.name, err)
	}
	rs.mu.Lock()
	ms.place.waits = nil
	rs.mu.Unlock()
	ms.member.enqueue(ms) // from here on it may wait for another part
}

// awaitPart returns when the member has its next part or has left, or with an
// error if the history cannot be read.
func (rs *roomState) awaitPart(ctx context.Context, ms *membership) error {
	for {
		ms.member.walk.Lock()
		rs.mu.Lock()
		r := ms.place.replay
		if ms.left.Load() || r == nil {
			rs.mu.Unlock()
			ms.member.walk.Unlock()
			return nil
		}
		v, err := rs.tryAdvance(ms)
		var changed <-chan struct{}
		if v == replay.LogBehind {
			changed = rs.awaitLog()
		}
		rs.mu.Unlock()
		ms.member.walk.Unlock()
		switch {
		case err != nil || v == replay.Complete:
			return err
		case v == replay.NeedsReading:
			err = rs.fetch(ctx, ms, r)
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
func (rs *roomState) awaitLog() <-chan struct{} {
	rs.mu.AssertHeld()
	if rs.follows() {
		rs.read()
	}
	return rs.whenChanged()
}

// abandon ends a replay whose history cannot be read: the member goes on with
// the log, and the rest is a gap.
func (rs *roomState) abandon(ms *membership) {
	ms.member.walk.Lock()
	defer ms.member.walk.Unlock()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := ms.place.replay
	if r == nil || ms.left.Load() {
		return
	}
	if inWindow := r.Abandon(rs.kept.follower.Position()); inWindow {
		ms.place.replay, ms.place.plain = nil, true
		return
	}
	r.Meet(ms.cursor.ToEnd(ms.opened))
}

// fetch waits until the room's history has been read for a replay, by whomever.
func (rs *roomState) fetch(ctx context.Context, ms *membership, r *memberReplay) error {
	rs.mu.Lock()
	k := rs.kept
	if k.store.Has(r.At(), k.follower.Position(), k.keep, ticks()) { // it has come meanwhile
		rs.mu.Unlock()
		return nil
	}
	q := k.store.Join(r.At())
	q.Done = make(chan struct{})
	rs.widen()
	rs.serve(firstRetry)
	moved := ms.whenMoved()
	rs.mu.Unlock()
	err := ms.wait(ctx, q.Done, moved)
	rs.mu.Lock()
	defer rs.mu.Unlock()
	select {
	case <-q.Done:
		r.Deliver(q.Page)
		return q.Err
	default:
		k.store.Leave(q)
		return err // nil: the caller sees that the member has left
	}
}

// serve has the room's history read for the members that wait for it, unless it
// is being read.
func (rs *roomState) serve(delay time.Duration) {
	rs.mu.AssertHeld()
	if rs.kept.store.Start() {
		rs.hub.readers.Add(func(one *work.Task) { rs.readForMembers(one, delay) })
	}
}

// readForMembers reads one page for those that wait, and has the next one read
// when it is the room's turn again. When the backend does not answer it is
// asked again, after the delay.
func (rs *roomState) readForMembers(one *work.Task, delay time.Duration) {
	h, k := rs.hub, rs.kept
	rs.mu.Lock()
	since, ok := k.store.Begin(k.keep.Messages <= rs.window().Messages)
	generation := k.follower.Generation()
	rs.mu.Unlock()
	if !ok {
		return
	}
	q := adapter.Query{Since: since, Limit: replay.PageMessages, Bytes: replay.PageBytes, Keep: k.keep, Time: time.Now()}
	read, err := h.readPage(one.Context(), rs.channel, q)
	if err == nil && !history.Progresses(&read, since) {
		err, delay = errNoProgress, max(delay, noProgressWait)
	}
	var p *replay.Page[item.Entry]
	if err == nil {
		p = rs.newPage(since, &read)
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var served []*replay.Request[item.Entry]
	switch {
	case h.ctx.Err() != nil:
		served = k.store.Fail(ErrClosed)
	case err == nil:
		if k.follower.Current(generation) && k.follower.Known() {
			k.store.Remember(p, k.follower.Position(), replay.Window(rs.window()))
			rs.expireLater()
		}
		served = k.store.Deliver(p)
		delay = firstRetry
	case errors.Is(err, ErrRefused), errors.Is(err, ErrClosed), errors.Is(err, errNoProgress) && delay >= lastRetry:
		served = k.store.Fail(err)
	default: // the next attempt ends if nobody waits by then
		h.readers.Again(one, delay, func(one *work.Task) { rs.readForMembers(one, min(2*delay, lastRetry)) })
		return
	}
	for _, q := range served {
		close(q.Done)
	}
	rs.serve(delay)
}

// errNoProgress means that a history announces more and gives nothing new.
var errNoProgress = errors.New("the history announces more, but gives nothing new")

// newPage decodes what the backend has returned for since.
func (rs *roomState) newPage(since adapter.Position, read *adapter.Page) *replay.Page[item.Entry] {
	p, now := replay.NewPage[item.Entry](since, read), ticks()
	for _, f := range read.Frames {
		var b batch.KeptFrame
		err := batch.OpenKept(&b, f, now)
		if err != nil {
			rs.hub.malformed(rs.channel, err)
		}
		p.Frame(b.First, f.At, err != nil)
		sender := ""
		if b.Header.Count > 0 {
			sender = unique.Make(hubID(b.Header.Hub)).Value()
		}
		var u batch.Unpacker
		batch.UnpackKept(&u, &b, &rs.hub.home, 0, sender)
		for u.Read() {
			if !u.Understood() {
				n := u.TakeNotUnderstood()
				rs.hub.notUnderstood(rs.channel, n)
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
func (rs *roomState) addRecent(entries []item.Entry, kept int64) {
	rs.mu.AssertHeld()
	rs.kept.store.Add(entries, kept, replay.Window(rs.window()))
	rs.expireLater()
}

// excuse notes which members fell out of the window because the hub has caught
// up. Whatever the room's Overflow is, they get the rest from the history if
// they read on before long.
func (rs *roomState) excuse() {
	rs.mu.AssertHeld()
	if rs.overflow() == Skip { // that is what it says
		return
	}
	k, oldest := rs.kept, rs.log.OldestKept()
	for ms := rs.members; ms != nil; ms = ms.next {
		if ms.member != nil && ms.cursor.Overrun(oldest) {
			ms.place.behind.CompareAndSwap(within, pushed)
			k.pushedAt = ticks()
		}
	}
}

// widen lets the room hold more than its window for a while.
func (rs *roomState) widen() {
	rs.mu.AssertHeld()
	if rs.kept.store.Widen(ticks()) {
		rs.hub.janitor.narrowLater(rs)
	}
}

// narrow ends what widen began, if it has not been needed for long enough, and
// reports whether it did.
func (rs *roomState) narrow() bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	k, now := rs.kept, ticks()
	if k.pushedAt != 0 && time.Duration(now-k.pushedAt) >= replay.WideTime {
		k.pushedAt = 0
		for ms := rs.members; ms != nil; ms = ms.next {
			if ms.member != nil {
				ms.place.behind.CompareAndSwap(pushed, within) // it has had the time to come back
			}
		}
	}
	if !k.store.Narrow(now, k.follower.CatchesUp(), replay.Window(rs.window())) {
		return false
	}
	rs.log.Widen(false)
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
