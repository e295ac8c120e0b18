package fanout

import (
	"context"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// publisherIdle is how long a hub keeps a channel that it does not publish to
// any more. Its numbers are remembered for longer.
const publisherIdle = 5 * time.Second

// unsubscribeTimeout is how long the janitor waits for one Unsubscribe. The
// subscription is over then, too.
const unsubscribeTimeout = 5 * time.Second

// A janitor removes what is not used any more: it ends subscriptions after
// Options.Linger and forgets rooms and outboxes, and what has expired of the
// histories of a hub that is alone. One goroutine, run.
type janitor struct {
	hub  *Hub
	kick chan struct{} // capacity 1: a queue has got its first entry

	mu         locks.Mutex[locks.Innermost] // guards the queues
	lingering  []*roomState                 // subscribed, for Options.Linger
	publishing []*roomState                 // not subscribed, for publisherIdle

	wideMu locks.Mutex[locks.Innermost] // guards wide. Inside the locks of rooms
	wide   []*roomState                 // that hold more than their window, for wideTime

	aging agingTails
}

// add gives the janitor a state that is marked idle and queued.
func (j *janitor) add(rs *roomState, subscribed bool) {
	q := &j.publishing
	if subscribed {
		q = &j.lingering
	}
	j.mu.Lock()
	*q = append(*q, rs)
	first := len(*q) == 1
	j.mu.Unlock()
	if first {
		j.wake()
	}
}

func (j *janitor) wake() {
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

func (j *janitor) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-j.kick:
		case <-timer.C:
		case <-j.hub.ctx.Done():
			return
		}
		var next time.Time
		for _, sweep := range []func(time.Time) time.Time{
			j.endLingering, j.forgetPublishing, j.narrowWide, j.hub.sweepOutbox, j.hub.numbers.sweep, j.sweepHistory, j.aging.sweep,
		} {
			if t := sweep(time.Now()); !t.IsZero() && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(0, time.Until(next)))
		}
	}
}

// sweepHistory drops what has expired in a hub that is alone, and says when the
// next will have.
func (j *janitor) sweepHistory(now time.Time) time.Time {
	if l, ok := j.hub.adapter.(*loopback); ok {
		return l.history.Sweep(now)
	}
	return time.Time{}
}

// endLingering ends the subscriptions that have lingered long enough, and says
// when the next one will have (zero: there is none).
func (j *janitor) endLingering(now time.Time) time.Time {
	return j.sweep(&j.lingering, j.hub.opts.Linger, now, func(rs *roomState) {
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
	return j.sweep(&j.publishing, publisherIdle, now, func(rs *roomState) {
		j.hub.mu.Lock()
		rs.mu.Lock()
		rs.queued = rs.idle() && rs.sub != subOff
		lingers := rs.queued
		if rs.idle() && rs.sub == subOff {
			rs.gone = true
			delete(j.hub.rooms, rs.channel)
			if o := rs.out.Load(); o != nil {
				stream, next := o.box.Numbers()
				j.hub.numbers.keep(rs.channel, stream, next)
			}
		}
		rs.mu.Unlock()
		j.hub.mu.Unlock()
		if lingers { // it was joined and left since it came into this queue
			j.add(rs, true)
		}
	})
}

// narrowLater has a room narrowed when its history has not been read for a while.
// The room's lock may be held.
func (j *janitor) narrowLater(rs *roomState) {
	j.wideMu.Lock()
	j.wide = append(j.wide, rs)
	first := len(j.wide) == 1
	j.wideMu.Unlock()
	if first {
		j.wake()
	}
}

// narrowWide narrows the rooms whose time has come, and says when to look again.
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
	return now.Add(wideTime / 2)
}

// sweep calls expire for the states of a queue that have been idle for a time,
// and returns when the next one will have been. A queue is in the order in which
// its states became idle: one that was used since goes to the back.
func (j *janitor) sweep(q *[]*roomState, after time.Duration, now time.Time, expire func(*roomState)) time.Time {
	for {
		rs, second := j.front(q)
		if rs == nil {
			return time.Time{}
		}
		rs.mu.Lock()
		due, used := began.Add(time.Duration(rs.idleSince)).Add(after), !rs.idle()
		if used {
			rs.queued = false
		}
		rs.mu.Unlock()
		early := !used && due.After(now)
		if early && (second == nil || !rs.idleSinceAfter(second)) {
			return due
		}
		j.pop(q, early)
		if !used && !early {
			expire(rs)
		}
	}
}

// front returns the first two states of a queue, nil if there are none. Only the
// janitor's goroutine takes states off a queue, so they stay there.
func (j *janitor) front(q *[]*roomState) (first, second *roomState) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch len(*q) {
	case 0:
		*q = nil
		return nil, nil
	case 1:
		return (*q)[0], nil
	}
	return (*q)[0], (*q)[1]
}

// pop takes the first state off a queue, or moves it to the back.
func (j *janitor) pop(q *[]*roomState, toBack bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if toBack {
		*q = append(*q, (*q)[0])
	}
	(*q)[0] = nil
	*q = (*q)[1:]
}

// idleSinceAfter reports whether rs became idle later than other.
func (rs *roomState) idleSinceAfter(other *roomState) bool {
	rs.mu.Lock()
	a := rs.idleSince
	rs.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	return a > other.idleSince
}

// idle reports whether nobody is in the room or works with it.
func (rs *roomState) idle() bool {
	rs.mu.AssertHeld()
	return rs.uses == 0 && rs.count == 0
}

func (rs *roomState) unsubscribe() {
	h := rs.hub
	ctx, cancel := context.WithTimeout(h.ctx, unsubscribeTimeout)
	defer cancel()
	if err := h.adapter.Unsubscribe(ctx, rs.channel); err != nil && h.ctx.Err() == nil {
		h.log.warn("fanout: unsubscribing", "room", rs.name, "error", err)
	}
	rs.mu.Lock()
	rs.sub, rs.interrupted = subOff, false
	rs.in = sequence.Tracker{}
	if rs.kept != nil {
		rs.kept.forget()
	}
	rs.tell()
	rs.mu.Unlock()
}
