package fanout

import (
	"context"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/idle"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/loopback"
	"github.com/fanoutgo/fanout/internal/publishing"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// unsubscribeTimeout is how long the janitor waits for one Unsubscribe. After
// that the subscription counts as ended.
const unsubscribeTimeout = 5 * time.Second

// A janitor removes what is no longer used. It ends subscriptions after
// Options.Linger, and forgets idle rooms and inboxes of other hubs, recent messages that
// have expired and, for a hub that is alone, its expired histories. One
// goroutine, run.
type janitor struct {
	hub     *Hub
	sweeper *idle.Sweeper

	lingering  idle.Queue[*room] // subscribed, for Options.Linger
	publishing idle.Queue[*room] // not subscribed, for publishing.KeptFor

	wideMu locks.Mutex[locks.Innermost] // guards wide
	wide   []*room                      // that hold more than their window, for replay.WideTime

	aging agingRooms
}

// add gives the janitor a room that is marked idle and queued.
func (j *janitor) add(r *room, subscribed bool) {
	q := &j.publishing
	if subscribed {
		q = &j.lingering
	}
	if q.Add(r) {
		j.wake()
	}
}

func (j *janitor) wake() { j.sweeper.Wake() }

func (j *janitor) run() {
	sweeps := []func(time.Time) time.Time{
		j.endLingering, j.forgetPublishing, j.narrowWide, j.hub.inboxes.Sweep, j.hub.numbers.Sweep, j.hub.endLate,
		j.hub.switchboard.Sweep, j.aging.sweep,
	}
	if l, ok := j.hub.adapter.(*loopback.Adapter); ok {
		sweeps = append(sweeps, l.Sweep)
	}
	j.sweeper.Run(j.hub.ctx, sweeps...)
}

func (h *Hub) release(r *room) { h.releaseAll(r, 1) }

// releaseAll releases a room that has been acquired, or held, n times.
func (h *Hub) releaseAll(r *room, n int) {
	r.mu.Lock()
	r.uses -= int32(n)
	idle := r.markIdle()
	subscribed := r.sub != subOff
	r.mu.Unlock()
	if idle {
		h.janitor.add(r, subscribed)
	}
}

// markIdle notes that a room is no longer used, if that is so. It reports whether
// the caller must add it to the janitor's queue.
func (r *room) markIdle() bool {
	r.mu.AssertHeld()
	if r.uses > 0 || r.count > 0 || r == r.hub.everyone {
		return false
	}
	r.idleSince = ticks()
	if r.queued {
		return false
	}
	r.queued = true
	return true
}

// endLingering ends the subscriptions that have lingered long enough, and says
// when the next one will have (zero: there is none).
func (j *janitor) endLingering(now time.Time) time.Time {
	return j.lingering.Sweep(j.hub.opts.Linger, now, func(r *room) {
		r.mu.Lock()
		ending := r.idle() && r.sub == subOn
		if ending {
			r.sub = subEnding
		}
		r.mu.Unlock()
		if ending {
			r.unsubscribe()
		}
		r.mu.Lock()
		again := r.idle()
		r.queued = again
		r.mu.Unlock()
		if again {
			j.add(r, false)
		}
	})
}

// forgetPublishing forgets the rooms that nobody has published to for a while.
func (j *janitor) forgetPublishing(now time.Time) time.Time {
	return j.publishing.Sweep(publishing.KeptFor, now, func(r *room) {
		j.hub.mu.Lock()
		r.mu.Lock()
		r.queued = r.idle() && r.sub != subOff
		lingers := r.queued
		if r.idle() && r.sub == subOff {
			r.gone = true
			delete(j.hub.rooms, r.channel)
			if out := r.out.Load(); out != nil {
				out.Forget()
			}
		}
		r.mu.Unlock()
		j.hub.mu.Unlock()
		if lingers { // it was joined and left since it came into this queue
			j.add(r, true)
		}
	})
}

// narrowLater has a room narrowed when its history has not been read for a
// while. The room's lock may be held.
func (j *janitor) narrowLater(r *room) {
	j.wideMu.Lock()
	j.wide = append(j.wide, r)
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
	for _, r := range all {
		if !r.narrow() {
			left = append(left, r)
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
func (r *room) idle() bool {
	r.mu.AssertHeld()
	return r.uses == 0 && r.count == 0
}

// IdleSince implements idle.Thing.
func (r *room) IdleSince() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return began.Add(time.Duration(r.idleSince))
}

// LeaveIfUsed implements idle.Thing.
func (r *room) LeaveIfUsed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := !r.idle()
	if used {
		r.queued = false
	}
	return used
}

func (r *room) unsubscribe() {
	h := r.hub
	ctx, cancel := context.WithTimeout(h.ctx, unsubscribeTimeout)
	defer cancel()
	if err := h.adapter.Unsubscribe(ctx, r.channel); err != nil && h.ctx.Err() == nil {
		h.log.Warn("fanout: unsubscribing", "room", r.name, "error", err)
	}
	r.mu.Lock()
	r.sub, r.interrupted = subOff, false
	r.in = sequence.Tracker{}
	if r.kept != nil {
		r.forgetHistory()
	}
	if p := r.presence(); p != nil {
		p.Unfollow()
	}
	r.tell()
	r.mu.Unlock()
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
	rooms []*room   // sweep's own, like due
	due   time.Time // when to look at them; zero: there are none

	mu    locks.Mutex[locks.Innermost] // guards fresh
	fresh []*room                      // that have some since sweep has looked
}

// expireLater tells the janitor of a room that has recent messages.
func (r *room) expireLater() {
	r.mu.AssertHeld()
	k := r.kept
	if k.ages || k.store.Empty() {
		return
	}
	k.ages = true
	a := &r.hub.janitor.aging
	a.mu.Lock()
	a.fresh = append(a.fresh, r)
	first := len(a.fresh) == 1
	a.mu.Unlock()
	if first {
		r.hub.janitor.wake()
	}
}

// sweep drops what has expired, and says when to look again (zero: there is
// nothing to look at).
func (a *agingRooms) sweep(now time.Time) time.Time {
	a.mu.Lock()
	fresh := a.fresh
	a.fresh = nil
	a.mu.Unlock()
	for _, r := range fresh {
		a.rooms = append(a.rooms, r)
		if due := now.Add(min(r.kept.keep.Age, expireRest)); a.due.IsZero() || due.Before(a.due) {
			a.due = due
		}
	}
	if len(a.rooms) == 0 || now.Before(a.due) {
		return a.due
	}
	next := now.Add(expireRest)
	a.rooms = slices.DeleteFunc(a.rooms, func(r *room) bool {
		due, empty := r.expireRecent(now)
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
func (r *room) expireRecent(now time.Time) (due time.Time, empty bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kept
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
