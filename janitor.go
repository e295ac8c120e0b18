package fanout

import (
	"context"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/idle"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/loopback"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// publisherIdle is how long a hub keeps a channel after it last published to
// it. The channel's numbers are remembered for longer.
const publisherIdle = 5 * time.Second

// unsubscribeTimeout is how long the janitor waits for one Unsubscribe. After
// that the subscription counts as ended.
const unsubscribeTimeout = 5 * time.Second

// A janitor removes what is no longer used. It ends subscriptions after
// Options.Linger, and forgets idle rooms and outboxes, recent messages that
// have expired and, for a hub that is alone, its expired histories. One
// goroutine, run.
type janitor struct {
	hub     *Hub
	sweeper *idle.Sweeper

	lingering  idle.Queue[*roomState] // subscribed, for Options.Linger
	publishing idle.Queue[*roomState] // not subscribed, for publisherIdle

	wideMu locks.Mutex[locks.Innermost] // guards wide
	wide   []*roomState                 // that hold more than their window, for replay.WideTime

	aging agingRooms
}

// add gives the janitor a state that is marked idle and queued.
func (j *janitor) add(rs *roomState, subscribed bool) {
	q := &j.publishing
	if subscribed {
		q = &j.lingering
	}
	if q.Add(rs) {
		j.wake()
	}
}

func (j *janitor) wake() { j.sweeper.Wake() }

func (j *janitor) run() {
	sweeps := []func(time.Time) time.Time{
		j.endLingering, j.forgetPublishing, j.narrowWide, j.hub.sweepOutbox, j.hub.sweepNumbers, j.hub.endLate,
		j.hub.switchboard.Sweep, j.aging.sweep,
	}
	if l, ok := j.hub.adapter.(*loopback.Adapter); ok {
		sweeps = append(sweeps, l.Sweep)
	}
	j.sweeper.Run(j.hub.ctx, sweeps...)
}

// sweepOutbox forgets the ways to hubs that nothing was sent to for a while,
// and says when to look again.
func (h *Hub) sweepOutbox(now time.Time) (next time.Time) {
	h.outMu.Lock()
	defer h.outMu.Unlock()
	for hub, o := range h.outbox {
		due := o.used.Add(publisherIdle)
		switch {
		case o.uses > 0:
			due = now.Add(publisherIdle)
		case !due.After(now):
			delete(h.outbox, hub)
			stream, next := o.box.Numbers()
			h.keepNumbers(o.channel, stream, next)
			continue
		}
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}

// keepNumbers remembers the numbers of a channel that is being forgotten.
func (h *Hub) keepNumbers(channel string, stream, next uint64) {
	h.numbersMu.Lock()
	defer h.numbersMu.Unlock()
	h.numbers.Keep(channel, stream, next, time.Now())
}

// takeNumbers returns the numbers of a channel that was forgotten.
func (h *Hub) takeNumbers(channel string) (stream, next uint64) {
	h.numbersMu.Lock()
	defer h.numbersMu.Unlock()
	return h.numbers.Take(channel)
}

// sweepNumbers forgets numbers that are too old, and returns when to look
// again.
func (h *Hub) sweepNumbers(now time.Time) time.Time {
	h.numbersMu.Lock()
	defer h.numbersMu.Unlock()
	return h.numbers.Forget(now)
}

func (h *Hub) release(rs *roomState) { h.releaseAll(rs, 1) }

// releaseAll releases a state that has been acquired, or held, n times.
func (h *Hub) releaseAll(rs *roomState, n int) {
	rs.mu.Lock()
	rs.uses -= int32(n)
	idle := rs.markIdle()
	subscribed := rs.sub != subOff
	rs.mu.Unlock()
	if idle {
		h.janitor.add(rs, subscribed)
	}
}

// markIdle notes that a state is no longer used, if that is so. It reports
// whether the caller must add the state to the janitor's queue.
func (rs *roomState) markIdle() bool {
	rs.mu.AssertHeld()
	if rs.uses > 0 || rs.count > 0 || rs == rs.hub.everyone {
		return false
	}
	rs.idleSince = ticks()
	if rs.queued {
		return false
	}
	rs.queued = true
	return true
}

// endLingering ends the subscriptions that have lingered long enough, and says
// when the next one will have (zero: there is none).
func (j *janitor) endLingering(now time.Time) time.Time {
	return j.lingering.Sweep(j.hub.opts.Linger, now, func(rs *roomState) {
		rs.mu.Lock()
		ending := rs.idle() && rs.sub == subOn
		if ending {
			rs.sub = subEnding
		}
		rs.mu.Unlock()
		if ending {
			rs.unsubscribe()
		}
		rs.mu.Lock()
		again := rs.idle()
		rs.queued = again
		rs.mu.Unlock()
		if again {
			j.add(rs, false)
		}
	})
}

// forgetPublishing forgets the rooms that nobody has published to for a while.
func (j *janitor) forgetPublishing(now time.Time) time.Time {
	return j.publishing.Sweep(publisherIdle, now, func(rs *roomState) {
		j.hub.mu.Lock()
		rs.mu.Lock()
		rs.queued = rs.idle() && rs.sub != subOff
		lingers := rs.queued
		if rs.idle() && rs.sub == subOff {
			rs.gone = true
			delete(j.hub.rooms, rs.channel)
			if o := rs.out.Load(); o != nil {
				stream, next := o.box.Numbers()
				j.hub.keepNumbers(rs.channel, stream, next)
			}
		}
		rs.mu.Unlock()
		j.hub.mu.Unlock()
		if lingers { // it was joined and left since it came into this queue
			j.add(rs, true)
		}
	})
}

// narrowLater has a room narrowed when its history has not been read for a
// while. The room's lock may be held.
func (j *janitor) narrowLater(rs *roomState) {
	j.wideMu.Lock()
	j.wide = append(j.wide, rs)
	first := len(j.wide) == 1
	j.wideMu.Unlock()
	if first {
		j.wake()
	}
}

// narrowWide narrows the rooms whose time has come, and says when to look
// again.
func (j *janitor) narrowWide(now time.Time) time.Time {
	j.wideMu.Lock()
	all := j.wide
	j.wide = nil
	j.wideMu.Unlock()
	left := all[:0]
	for _, rs := range all {
		if !rs.narrow() {
			left = append(left, rs)
		}
	}
	clear(all[len(left):])
	j.wideMu.Lock()
	defer j.wideMu.Unlock()
	j.wide = append(left, j.wide...)
	if len(j.wide) == 0 {
		j.wide = nil
		return time.Time{}
	}
	return now.Add(replay.WideTime / 2)
}

// idle reports whether nobody is in the room or works with it.
func (rs *roomState) idle() bool {
	rs.mu.AssertHeld()
	return rs.uses == 0 && rs.count == 0
}

// IdleSince implements idle.Thing.
func (rs *roomState) IdleSince() time.Time {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return began.Add(time.Duration(rs.idleSince))
}

// LeaveIfUsed implements idle.Thing.
func (rs *roomState) LeaveIfUsed() bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	used := !rs.idle()
	if used {
		rs.queued = false
	}
	return used
}

func (rs *roomState) unsubscribe() {
	h := rs.hub
	ctx, cancel := context.WithTimeout(h.ctx, unsubscribeTimeout)
	defer cancel()
	if err := h.adapter.Unsubscribe(ctx, rs.channel); err != nil && h.ctx.Err() == nil {
		h.log.Warn("fanout: unsubscribing", "room", rs.name, "error", err)
	}
	rs.mu.Lock()
	rs.sub, rs.interrupted = subOff, false
	rs.in = sequence.Tracker{}
	if rs.kept != nil {
		rs.forgetHistory()
	}
	if p := rs.presence(); p != nil {
		p.Unfollow()
	}
	rs.tell()
	rs.mu.Unlock()
}

// The latest messages of rooms are looked at when the first of them expires,
// but no more often than every expirePause, and at least every expireRest, to
// let go of rooms that are no longer subscribed.
const (
	expirePause = time.Second
	expireRest  = time.Minute
)

// agingRooms are the rooms that have recent messages, which are to go when
// their age is over even if nothing more is published there. The janitor calls
// sweep.
type agingRooms struct {
	rooms []*roomState // sweep's own, like due
	due   time.Time    // when to look at them; zero: there are none

	mu    locks.Mutex[locks.Innermost] // guards fresh
	fresh []*roomState                 // that have some since sweep has looked
}

// expireLater tells the janitor of a room that has recent messages.
func (rs *roomState) expireLater() {
	rs.mu.AssertHeld()
	k := rs.kept
	if k.ages || k.store.Empty() {
		return
	}
	k.ages = true
	a := &rs.hub.janitor.aging
	a.mu.Lock()
	a.fresh = append(a.fresh, rs)
	first := len(a.fresh) == 1
	a.mu.Unlock()
	if first {
		rs.hub.janitor.wake()
	}
}

// sweep drops what has expired, and says when to look again (zero: there is
// nothing to look at).
func (a *agingRooms) sweep(now time.Time) time.Time {
	a.mu.Lock()
	fresh := a.fresh
	a.fresh = nil
	a.mu.Unlock()
	for _, rs := range fresh {
		a.rooms = append(a.rooms, rs)
		if due := now.Add(min(rs.kept.keep.Age, expireRest)); a.due.IsZero() || due.Before(a.due) {
			a.due = due
		}
	}
	if len(a.rooms) == 0 || now.Before(a.due) {
		return a.due
	}
	next := now.Add(expireRest)
	a.rooms = slices.DeleteFunc(a.rooms, func(rs *roomState) bool {
		due, empty := rs.expireRecent(now)
		if !empty && due.Before(next) {
			next = due
		}
		return empty
	})
	if len(a.rooms) == 0 {
		a.rooms, next = nil, time.Time{}
	}
	a.due = next
	return next
}

// expireRecent drops what has expired of a room's recent messages, and says
// when the next will have, or that nothing is left.
func (rs *roomState) expireRecent(now time.Time) (due time.Time, empty bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	k := rs.kept
	first, empty := k.store.Expire(ticks() - k.keep.Age.Nanoseconds())
	if k.ages = !empty; empty {
		return due, true
	}
	due = began.Add(time.Duration(first)).Add(k.keep.Age + 1)
	if soon := now.Add(max(expirePause, k.keep.Age/8)); due.Before(soon) {
		due = soon // not each chunk by itself
	}
	return due, false
}
