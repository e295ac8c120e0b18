package fanout

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// A roomState is a room as one hub has it: its log, its members on this hub,
// its subscription, and the numbers of what comes in and goes out. It exists
// while it has members, is being joined or published to, and for a while after
// that.
//
// The log's order is made under mu: Receive, and Publish of Local selections,
// append under it. Wake-ups and calls of the adapter happen after it is
// released. The order of all locks is in docs/ARCHITECTURE.md.
//
// Most rooms have not been heard of for a while, and what takes longest is to
// fetch them from memory: what is needed together lies together, in lines of 64
// bytes.
type roomState struct {
	// What publishing needs.
	hub  *Hub
	kept *roomHistory             // nil: the room keeps no history
	rare *rare                    // what few rooms have; nil: nothing of it
	out  atomic.Pointer[outbound] // nil until something is published

	mu          locks.Mutex[locks.Room] // guards all below, but for what has a word of its own
	uses        int32                   // of Join and Publish; while positive the state stays
	count       int32                   // of members
	idleSince   int64                   // when uses and members became 0; see ticks
	sub         subscription
	interrupted bool // the adapter says frames may be missing
	queued      bool // the janitor has it
	gone        bool // the hub has forgotten it

	// What arriving frames need, too.
	in      sequence.Tracker
	members *membership
	log     roomlog.Log[item.Entry, *membership] // it has a lock of its own

	name    string // never changed, like channel; empty for the room of everyone
	channel string
	changed chan struct{} // closed when sub or interrupted change; nil: nobody waits
	sweptAt uint64        // OldestKept at the last search for slow members
}

// ticks is a clock that nobody sets, in ns: a time.Time takes three times the
// room.
func ticks() int64 { return int64(time.Since(began)) }

// ticksAt is what ticks returns at a time.
func ticksAt(now time.Time) int64 { return int64(now.Sub(began)) }

// timeOf is the time at which ticks returned t, if nobody has set the clock: it
// is for differences.
func timeOf(t int64) time.Time { return began.Add(time.Duration(t)) }

var began = time.Now()

// A subscription is the state of a room at the adapter. The first caller that
// needs it and finds it off subscribes; the others wait for the outcome.
type subscription uint8

const (
	subOff subscription = iota
	subStarting
	subOn
	subEnding
)

func newRoomState(h *Hub, name, channel string, kept *roomHistory, limits *limits, special *rare) *roomState {
	rs := &roomState{hub: h, name: name, channel: channel, kept: kept, rare: special}
	if p := rs.presence(); p != nil {
		p.Init(&h.announcer, host{rs})
	}
	rs.log.Init(limits)
	if kept != nil {
		kept.follower.Init(&rs.in)
	}
	return rs
}

// way returns the way out to the room's channel. The room is in use.
func (rs *roomState) way() *outbound {
	if o := rs.out.Load(); o != nil {
		return o
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if o := rs.out.Load(); o != nil {
		return o // somebody was faster
	}
	o := new(outbound)
	o.init(rs.hub, rs, rs.channel)
	rs.out.Store(o)
	return o
}

// acquire returns the state of a room, which stays until it is released.
func (h *Hub) acquire(name, channel string) *roomState {
	h.mu.RLock()
	rs := h.rooms[channel]
	if rs != nil {
		rs.mu.Lock() // under h.mu: the janitor removes under both
		rs.uses++
		rs.mu.Unlock()
	}
	h.mu.RUnlock()
	if rs != nil {
		return rs
	}
	kept, limits, special := h.roomOptions(name, channel) // calls the user, so no lock is held
	h.mu.Lock()
	defer h.mu.Unlock()
	rs = h.rooms[channel]
	if rs == nil {
		rs = newRoomState(h, name, channel, kept, limits, special)
		h.rooms[channel] = rs
	}
	rs.mu.Lock()
	rs.uses++
	rs.mu.Unlock()
	return rs
}

// hold is acquire for callers that have the state already. It is false if the
// hub has forgotten the state.
func (rs *roomState) hold() bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.gone {
		return false
	}
	rs.uses++
	return true
}

// await makes ms a member of the room, once the hub's own channels and the
// room's stand and, where there is a history, its place in that is known. A
// Resume (r) puts itself there; a Join beside it waits for how that ends.
func (rs *roomState) await(ctx context.Context, ms *membership, r *memberReplay) error {
	if err := rs.awaitOthers(ctx, ms); err != nil {
		return err
	}
	var admitted admission
	asked := false // for the place in the history
	for {
		rs.mu.Lock()
		switch {
		case ms.left.Load():
			rs.mu.Unlock()
			return ms.endError()
		case ms.joined:
			rs.mu.Unlock()
			return nil
		case rs.follows() && !admitted.stands(rs):
			rs.mu.Unlock()
			if err := admitted.ask(ctx, ms); err != nil {
				return err
			}
			continue
		case rs.follows() && !ms.resumes():
			rs.open(ms)
			listed := rs.parkNew(ms)
			rs.mu.Unlock()
			if listed {
				ms.member.enqueue(ms)
			}
			return nil
		case rs.follows() && r != nil:
			if done, err := rs.resume(ctx, ms, r); done || err != nil {
				return err
			}
			continue
		case rs.follows():
		case rs.sub == subOn && !rs.interrupted && !rs.kept.follower.Reading():
			if err := rs.kept.follower.Err(); asked && err != nil {
				rs.mu.Unlock()
				return err
			}
			rs.read()
		case rs.sub == subOff:
			rs.sub, rs.interrupted = subStarting, false
			asking, cancel := context.WithCancelCause(ctx)
			ms.waiting().giveUp = cancel
			rs.mu.Unlock()
			if err := rs.subscribe(asking, ms, cancel); err != nil {
				return err
			}
			continue
		}
		changed, moved := rs.whenChanged(), ms.whenMoved()
		asked = asked || rs.sub == subOn && rs.kept != nil && rs.kept.follower.Reading()
		rs.mu.Unlock()
		if err := ms.wait(ctx, changed, moved); err != nil {
			return err
		}
	}
}

// resume takes a Resume a step further, and reports whether the member is in
// the room now. It releases rs.mu.
func (rs *roomState) resume(ctx context.Context, ms *membership, r *memberReplay) (done bool, err error) {
	rs.mu.AssertHeld()
	since := r.At()
	v, err := rs.assemble(r)
	switch v {
	case replay.Complete:
		rs.start(ms, r, since)
	case replay.LogBehind:
		rs.read()
	}
	rs.mu.Unlock()
	switch {
	case err != nil:
		return false, err
	case v == replay.Complete:
		ms.member.enqueue(ms)
		return true, nil
	case v == replay.NeedsReading:
		return false, rs.fetch(ctx, ms, r)
	}
	return false, nil
}

// whenChanged returns a channel that is closed when the subscription, or what
// is known of the history, changes.
func (rs *roomState) whenChanged() <-chan struct{} {
	rs.mu.AssertHeld()
	if rs.changed == nil {
		rs.changed = make(chan struct{})
	}
	return rs.changed
}

// follows reports whether whatever is published from now on goes into the log
// or is reported missing there.
func (rs *roomState) follows() bool {
	rs.mu.AssertHeld()
	return rs.sub == subOn && !rs.interrupted && (rs.kept == nil || rs.kept.follower.Follows())
}

// subscribe makes the adapter's call on behalf of all that wait. ctx is that of
// the first of them. If the call ends early, because ctx ends or because the
// member leaves, which calls cancel, the next one that waits tries again.
func (rs *roomState) subscribe(ctx context.Context, ms *membership, cancel context.CancelCauseFunc) (err error) {
	stop := context.AfterFunc(rs.hub.open, func() { cancel(ErrClosed) })
	err = errPanic // others must not wait for ever, whatever the adapter does
	defer func() {
		stop()
		cancel(nil)
		rs.subscribed(ms, err)
	}()
	err = rs.hub.adapter.Subscribe(ctx, rs.channel)
	switch {
	case err == nil:
	case rs.hub.isClosing():
		err = ErrClosed
	case ms.left.Load():
		err = ms.endError()
	}
	return err
}

// subscribed notes how a call of the adapter has ended that was made on behalf
// of a membership. Nothing of that call's context is kept.
func (rs *roomState) subscribed(ms *membership, err error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.sub = subOff
	if p := ms.place; p != nil && p.waits != nil {
		p.waits.giveUp = nil
	}
	switch {
	case err == nil:
		rs.sub = subOn
		rs.in.BeginRun(time.Now())
		if rs.kept != nil {
			rs.readHistory(rs.kept.follower.Subscribed())
		}
		if p := rs.presence(); p != nil {
			p.Follow()
		}
	case rs.kept != nil:
		rs.forgetHistory()
	}
	rs.tell()
}

// tell wakes those that wait for a change.
func (rs *roomState) tell() {
	rs.mu.AssertHeld()
	if rs.changed != nil {
		close(rs.changed)
		rs.changed = nil
	}
}

// open puts a membership into the room, at the end of its log.
func (rs *roomState) open(ms *membership) {
	rs.mu.AssertHeld()
	ms.joined, ms.opened = true, rs.in.Run()
	ms.setSince(rs.hub.leftOut.Load())
	ms.next = rs.members
	if ms.next != nil {
		ms.next.prev = ms
	}
	rs.members = ms
	rs.count++
	rs.log.Open(&ms.cursor, ms)
	if rs.kept != nil {
		ms.place.last = public(rs.kept.follower.Position(), rs.kept.mark)
	}
	if ms.place != nil {
		ms.doneWaiting()
	}
	ms.list()
	rs.hasJoined(ms)
}

// remove takes a membership out. The member's walk is locked, and ms.left set.
func (rs *roomState) remove(ms *membership) {
	ms.member.walk.AssertHeld()
	rs.mu.Lock()
	idle := false
	if ms.joined {
		ms.joined = false
		if ms.retired {
			ms.retired = false
			rs.uses--
		} else {
			rs.unlist(ms)
		}
		ms.cursor.Close()
		idle = rs.markIdle()
	}
	ms.tell() // a Join that waits learns that it was overtaken
	if p := ms.place; p != nil && p.waits != nil && p.waits.giveUp != nil {
		p.waits.giveUp(ErrLeft)
	}
	subscribed := rs.sub != subOff
	rs.mu.Unlock()
	if idle {
		rs.hub.janitor.add(rs, subscribed)
	}
}

// append adds a gap and entries to the log. The caller runs the wakeups after
// releasing the lock.
func (rs *roomState) append(gap roomlog.Gap, entries []item.Entry) wakeups {
	rs.mu.AssertHeld()
	return rs.appendAfter(roomlog.Gap{}, gap, entries)
}

// appendAfter is append with a gap before all that lies before the run.
func (rs *roomState) appendAfter(earlier, gap roomlog.Gap, entries []item.Entry) wakeups {
	rs.mu.AssertHeld()
	return rs.appended(rs.log.AppendAfter(earlier, gap, entries))
}

// appended returns what follows an append to the log.
func (rs *roomState) appended(log roomlog.Wakeups[item.Entry, *membership]) wakeups {
	rs.mu.AssertHeld()
	w := wakeups{log: log}
	if rs.overflow() == Disconnect && !rs.catchesUp() {
		w.slow = rs.slowMembers()
	}
	return w
}

// slowMembers finds members that fell out of the window. It looks at all of
// them, so it waits until the window has moved by a quarter.
func (rs *roomState) slowMembers() (slow []*Member) {
	rs.mu.AssertHeld()
	oldest := rs.log.OldestKept()
	kept, _ := rs.log.Kept()
	if oldest-rs.sweptAt < uint64(max(1, kept/4)) {
		return nil
	}
	rs.sweptAt = oldest
	for ms := rs.members; ms != nil; ms = ms.next {
		if ms.member != nil && ms.cursor.Overrun(oldest) && (ms.place == nil || ms.place.behind.Load() == within) {
			slow = append(slow, ms.member)
		}
	}
	return slow
}
