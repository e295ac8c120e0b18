package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/follow"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/reading"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// A roomHistory is the history of a room as this hub has it. It is part of a
// room, whose lock guards all that changes.
type roomHistory struct {
	reading.History[historyHost, wakeups]
	mark uint64 // of the room, in the epochs that users see; never changed

	// pushedAt is when the hub last pushed members out of the window by catching
	// up, by package clock; 0: no member is excused for that.
	pushedAt int64
}

// initReader sets what readers of histories need from the hub.
func (h *Hub) initReader() {
	h.reader = reading.Reader{
		Context: h.ctx, Historian: h.historian, Pool: &h.pool, Home: &h.home,
		Counted:   func() { h.stats.reads.Add(1) },
		Believed:  believedEpoch,
		Malformed: h.malformed, NotUnderstood: h.notUnderstood, Unreadable: h.historyUnreadable,
		Explain: h.withHealth,
	}
}

// A historyHost is a room as package reading sees it. It implements
// reading.Host.
type historyHost struct{ room *room }

func (r historyHost) Reader() *reading.Reader         { return &r.room.hub.reader }
func (r historyHost) Mutex() *locks.Mutex[locks.Room] { return &r.room.mu }
func (r historyHost) Name() string                    { return r.room.name }
func (r historyHost) Channel() string                 { return r.room.channel }
func (r historyHost) Window() replay.Window           { return replay.Window(r.room.window()) }
func (r historyHost) Follows() bool                   { return r.room.follows() }
func (r historyHost) Widened()                        { r.room.hub.janitor.narrowLater(r.room) }
func (r historyHost) WidenLog()                       { r.room.log.Widen(true) }
func (r historyHost) CaughtUp()                       { r.room.excuse() }
func (r historyHost) Kept()                           { r.room.hub.janitor.expireLater(r.room) }
func (r historyHost) Changed() <-chan struct{}        { return r.room.whenChanged() }
func (r historyHost) Tell()                           { r.room.tell() }
func (r historyHost) Wake(w wakeups)                  { w.run(r.room.hub) }

func (r historyHost) Put(a *follow.Append, b *batch.KeptFrame) wakeups { return r.room.put(a, b) }

// history checks a position that a user has passed, and converts it to the
// backend's.
func (r *room) history(since Position) (adapter.Position, error) {
	switch {
	case r.invalid() != nil:
		return adapter.Position{}, r.invalid()
	case r.kept == nil:
		return adapter.Position{}, fmt.Errorf("%w: Options.Room gives it no Retain", ErrNoHistory)
	}
	return since.of(r.kept.mark)
}

// past returns messages after since, as Room.History does.
func (r *room) past(ctx context.Context, since adapter.Position, limit int) ([]Message, error) {
	ctx, release := r.hub.bound(ctx)
	defer release()
	list, err := r.kept.List(ctx, since, limit)
	if ahead, is := errors.AsType[*reading.AheadError](err); is {
		return nil, r.ahead(ahead.At, ahead.Head)
	}
	if err != nil {
		return nil, err
	}
	entries := list.Items()
	messages := make([]Message, len(entries))
	for i, e := range entries {
		messages[i] = Message{Room: r.name, Data: e.Data, Sender: e.Sender, Position: public(e.At, r.kept.mark)}
	}
	if gap := list.Gap(); !gap.IsZero() {
		return messages, &GapError{Room: r.name, Missed: gap.Missed, Unknown: gap.Unknown}
	}
	return messages, nil
}

// ahead returns the error for a position that the history has not reached.
func (r *room) ahead(at, head adapter.Position) error {
	return fmt.Errorf("%w: %v is ahead of the room's history, which is at %v",
		ErrInvalidPosition, public(at, r.kept.mark), public(head, r.kept.mark))
}

// catchesUp reports whether the log is catching up with the history.
func (r *room) catchesUp() bool {
	r.mu.AssertHeld()
	return r.kept != nil && r.kept.Follower.CatchesUp()
}

// isWhole reports whether no message that was published earlier can still come
// into the log.
func (r *room) isWhole() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept == nil || r.follows()
}

// A memberReplay is a member that comes from behind; see package replay. It
// meets the log when a part ends at the position of the log: its cursor is
// moved there in the same step.
//
// Until the membership is joined room.mu guards it. After that its position and
// its page change under room.mu, and the part being read under Member.walk.
type memberReplay = reading.Replay

// assemble gives a replay its next part, or says what is needed first, or that
// the replay cannot continue.
func (r *room) assemble(rp *memberReplay) (replay.Verdict, error) {
	r.mu.AssertHeld()
	v, err := r.kept.Assemble(rp)
	if v == replay.AheadOfHistory {
		err = r.ahead(rp.At(), rp.Head())
	}
	return v, err
}

// resume takes a Resume a step further, and reports whether the member is in
// the room now. It releases r.mu.
func (r *room) resume(ctx context.Context, ms *membership, rp *memberReplay) (done bool, err error) {
	r.mu.AssertHeld()
	since := rp.At()
	v, err := r.assemble(rp)
	switch v {
	case replay.Complete:
		r.start(ms, rp, since)
	case replay.LogBehind:
		r.kept.CatchUp()
	}
	r.mu.Unlock()
	switch {
	case err != nil:
		return false, err
	case v == replay.Complete:
		ms.member.enqueue(ms)
		return true, nil
	case v == replay.NeedsReading:
		return false, r.kept.Fetch(ctx, ms, rp)
	}
	return false, nil
}

// start puts a member that resumes into the room, when it has its first part.
func (r *room) start(ms *membership, rp *memberReplay, since adapter.Position) {
	r.mu.AssertHeld()
	r.open(ms)
	p, k := ms.place, r.kept
	pos := k.Follower.Position()
	rp.Begin(pos)
	if !pos.Before(since) {
		p.after = public(since, k.mark)
		p.last = p.after
	} // otherwise the history has gone back behind since, and all that comes is new
	if rp.Met() && rp.Empty() {
		p.replay = nil
		return
	}
	p.behind.Store(replays)
}

// passGap begins to fill the gap before the cursor of ms, or consumes it.
func (m *Member) passGap(ms *membership) error {
	m.walk.AssertHeld()
	if m.refills(ms) {
		ms.place.replay = replay.Refill[item.Entry](ms.place.last.private())
		ms.place.behind.Store(replays)
		return nil
	}
	return m.gap(ms)
}

// refills reports whether the gap before the cursor of ms is one that the
// member has made by lagging, and the history has what is missing there.
func (m *Member) refills(ms *membership) bool { return ms.cursor.Cut() && m.mayRefill(ms) }

// mayRefill reports whether the member gets messages that fall out of the
// window from the history.
func (m *Member) mayRefill(ms *membership) bool {
	m.walk.AssertHeld()
	p := ms.place
	return p != nil && ms.room.kept != nil && (ms.room.overflow() == Skip || p.behind.Load() != within) && !p.plain
}

// takeGapsInOrder is takeGaps for a room with a history. It notes how far the
// member has come, so that the history is not read for messages that were
// reported to it as missed. Nothing is appended meanwhile.
func (m *Member) takeGapsInOrder(ms *membership) (sum roomlog.Gap, slow bool) {
	r := ms.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.mayRefill(ms) && ms.cursor.FallBack() {
		return sum, false
	}
	sum, slow = m.takeGaps(ms)
	last := r.kept.Follower.Position()
	if next, ok := ms.cursor.Find(func(e *item.Entry) bool { return !e.At.IsZero() }); ok {
		last = adapter.Position{Epoch: next.At.Epoch, Offset: next.At.Offset - 1}
	}
	ms.place.last = public(last, r.kept.mark)
	return sum, slow
}

// tryAdvance gives the member its next part, and puts its cursor where the part
// meets the log. If there is no part yet, it says what is needed: see bring.
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

// advance is tryAdvance for the goroutine that receives. It reports whether the
// member has a part.
func (ms *membership) advance() (ok bool) {
	ms.member.walk.AssertHeld()
	r := ms.room
	r.mu.Lock()
	defer r.mu.Unlock()
	v, _ := r.tryAdvance(ms)
	return v == replay.Complete
}

// Advance implements reading.Member.
func (ms *membership) Advance() (s reading.Step, err error) {
	ms.member.walk.Lock()
	defer ms.member.walk.Unlock()
	r := ms.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Replay = ms.place.replay; ms.left.Load() || s.Replay == nil {
		return s, nil // Complete: nothing is needed
	}
	if s.Verdict, err = r.tryAdvance(ms); s.Verdict == replay.LogBehind {
		s.Changed = r.kept.AwaitLog()
	}
	return s, err
}

// Done implements reading.Member.
func (ms *membership) Done() <-chan struct{} { return ms.member.Done() }

// bring waits until the member has its next part, while it receives from its
// other rooms. It runs on a goroutine of its own.
func (r *room) bring(ms *membership) {
	ctx, cancel := context.WithCancelCause(r.hub.ctx)
	defer cancel(nil)
	r.mu.Lock()
	ms.waiting().cancel = cancel // when the member leaves
	r.mu.Unlock()
	err := r.kept.Await(ctx, ms)
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
	ms.member.enqueue(ms) // from here on the member may wait for another part
}

// abandon ends a replay whose history cannot be read: the member continues with
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
	if inWindow := rp.Abandon(r.kept.Follower.Position()); inWindow {
		ms.place.replay, ms.place.plain = nil, true
		return
	}
	rp.Meet(ms.cursor.ToEnd(ms.opened))
}

// excuse notes the members that fell out of the window because the hub has
// caught up. Whatever the room's Overflow is, they get the rest from the
// history if they continue to read soon.
func (r *room) excuse() {
	r.mu.AssertHeld()
	if r.overflow() == Skip { // they get the rest from the history anyway
		return
	}
	k, oldest := r.kept, r.log.OldestKept()
	for ms := range r.members.All {
		if ms.cursor.Overrun(oldest) {
			ms.place.behind.CompareAndSwap(within, pushed)
			k.pushedAt = clock.Now()
		}
	}
}

// excuseNoLonger ends what excuse began, for members that have had the time to
// continue.
func (r *room) excuseNoLonger(now int64) {
	r.mu.AssertHeld()
	k := r.kept
	if k.pushedAt == 0 || time.Duration(now-k.pushedAt) < replay.WideTime {
		return
	}
	k.pushedAt = 0
	for ms := range r.members.All {
		ms.place.behind.CompareAndSwap(pushed, within)
	}
}

// narrow makes the room hold no more than its window again, if its history has
// not been read for a while, and reports whether it did.
func (r *room) narrow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := clock.Now()
	r.excuseNoLonger(now)
	if !r.kept.Narrow(now) {
		return false
	}
	r.log.Widen(false)
	return true
}
