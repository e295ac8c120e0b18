package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/idle"
	"github.com/fanoutgo/fanout/internal/life"
	"github.com/fanoutgo/fanout/internal/loopback"
	"github.com/fanoutgo/fanout/internal/publishing"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// unsubscribeTimeout is how long the janitor waits for one Unsubscribe. After
// that the subscription counts as ended.
const unsubscribeTimeout = 5 * time.Second

// A janitor removes what is no longer used. It ends subscriptions after
// Options.Linger, and forgets idle rooms and inboxes of other hubs, recent
// messages that have expired and, for a hub that is alone, its expired
// histories. One goroutine, run.
type janitor struct {
	hub     *Hub
	sweeper *idle.Sweeper

	lingering  idle.Queue[*room] // subscribed, for Options.Linger
	publishing idle.Queue[*room] // not subscribed, for publishing.KeptFor

	wide  idle.Rounds[*room] // that hold more than their window, for replay.WideTime
	aging idle.Rounds[*room] // that have messages for members that come later, until those expire
}

// add gives the janitor a room that is idle: Life has said so.
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
		j.hub.switchboard.Sweep, j.expireRecent,
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
	queue := r.life.Release(n, clock.Now())
	subscribed := r.life.State() != life.Off
	r.mu.Unlock()
	if queue {
		h.janitor.add(r, subscribed)
	}
}

// endLingering ends the subscriptions that have lingered long enough, and says
// when the next one will have (zero: there is none).
func (j *janitor) endLingering(now time.Time) time.Time {
	return j.lingering.Sweep(j.hub.opts.Linger, now, func(r *room) {
		r.mu.Lock()
		ending := r.life.Linger()
		r.mu.Unlock()
		if ending {
			r.unsubscribe()
		}
		r.mu.Lock()
		queue := r.life.Lingered()
		r.mu.Unlock()
		if queue {
			j.add(r, false)
		}
	})
}

// forgetPublishing forgets the rooms that nobody has published to for a while.
func (j *janitor) forgetPublishing(now time.Time) time.Time {
	return j.publishing.Sweep(publishing.KeptFor, now, func(r *room) {
		j.hub.mu.Lock()
		r.mu.Lock()
		lingers := r.life.Forget()
		if r.life.State() == life.Gone {
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

// narrowLater arranges for a room to be narrowed when its history has not been
// read for a while. The room's lock may be held.
func (j *janitor) narrowLater(r *room) {
	if j.wide.Add(r, time.Now().Add(replay.WideTime)) {
		j.wake()
	}
}

// narrowWide narrows the rooms whose time has come, and returns when to look
// again.
func (j *janitor) narrowWide(now time.Time) time.Time {
	return j.wide.Sweep(now, func(r *room) (time.Time, bool) {
		return now.Add(replay.WideTime / 2), r.narrow()
	})
}

// expireRest is the longest time for which the recent messages of a room are
// not looked at, so that those of rooms that are no longer subscribed are
// dropped.
const expireRest = time.Minute

// expireLater makes the recent messages of a room expire, even if nothing more
// is published there. The room's lock may be held.
func (j *janitor) expireLater(r *room) {
	if j.aging.Add(r, time.Now().Add(min(r.kept.Keep.Age, expireRest))) {
		j.wake()
	}
}

// expireRecent drops messages that have expired, and says when to look again.
func (j *janitor) expireRecent(now time.Time) time.Time {
	tick := clock.At(now)
	return j.aging.Sweep(now, func(r *room) (again time.Time, done bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		next, empty := r.kept.Store.Expire(tick, r.kept.Keep.Age)
		return now.Add(min(time.Duration(next-tick), expireRest)), empty
	})
}

// IdleSince implements idle.Thing.
func (r *room) IdleSince() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return clock.Time(r.life.IdleSince())
}

// LeaveIfUsed implements idle.Thing.
func (r *room) LeaveIfUsed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.life.Dequeue()
}

// unsubscribe ends the subscription of a room, which is ending.
func (r *room) unsubscribe() {
	h := r.hub
	ctx, cancel := context.WithTimeout(h.ctx, unsubscribeTimeout)
	defer cancel()
	if err := h.adapter.Unsubscribe(ctx, r.channel); err != nil && h.ctx.Err() == nil {
		h.log.Warn("fanout: unsubscribing", "room", r.name, "error", err)
	}
	r.mu.Lock()
	r.life.Ended()
	r.in = sequence.Tracker{}
	if r.kept != nil {
		r.kept.Forget()
	}
	if p := r.presence(); p != nil {
		p.Unfollow()
	}
	r.tell()
	r.mu.Unlock()
}

// Close ends the hub. It finishes publishes that have begun; every later call,
// and every Join and Resume that is waiting, fails with [ErrClosed]. The
// contexts of calls of [Options.Admit] end. Then Close closes the members and
// the adapter. When it returns nil, no goroutine, subscription or connection of
// the hub is left, unless the adapter's Close fails, which [Options.Logger] is
// told.
//
// If ctx ends first, Close gives up the publishes and returns the error of ctx,
// which says what it was waiting for. The rest continues in the background,
// until calls of the adapter, its Close, and callbacks have returned. A second
// call waits for the first.
//
// Close waits for callbacks that are running: those of PublishAsync,
// [MemberOptions.OnReady], [Options.OnJoin] and OnLeave, and an Options.Room or
// Options.Admit that [Selection.Join] has called. A Close that one of them
// calls would wait for itself until ctx ends. A callback that has to end the
// hub starts a goroutine that does.
//
// At the end Close waits up to a second for [Options.Logger]. If the Logger
// does not return by then, the error says so, and one goroutine is left until
// it does.
func (h *Hub) Close(ctx context.Context) error {
	h.closeOnce.Do(func() {
		h.mu.Lock()
		h.shut()
		h.mu.Unlock()
		h.await("publishes, questions and commands under way, and callbacks of PublishAsync")
		h.ops.Close()
		go h.shutDown(ctx) // waited for below, through h.closed
	})
	select {
	case <-h.closed:
		return h.closeErr
	case <-ctx.Done():
		return fmt.Errorf("fanout: close: %w (waiting for %s)", context.Cause(ctx), h.waitingFor())
	}
}

// await notes what Close is waiting for.
func (h *Hub) await(what string) { h.awaited.Store(&what) }

// waitingFor says what Close is waiting for.
func (h *Hub) waitingFor() string {
	what := *h.awaited.Load()
	if n := h.commandedJoins.Load(); n > 0 {
		what += fmt.Sprintf("; joins under way for Selection.Join, which call Options.Room and Options.Admit: %d", n)
	}
	return what
}

// shutDown does the work of Close. ctx bounds how long publishes are awaited.
func (h *Hub) shutDown(ctx context.Context) {
	defer close(h.closed)
	select {
	case <-h.ops.Empty():
	case <-ctx.Done():
	}
	if !h.alone {
		h.lookout.Leave(ctx, h.isDown)
	}
	h.cancel()
	h.mu.Lock()
	members := make([]*Member, 0, len(h.members))
	for _, m := range h.members {
		members = append(members, m)
	}
	h.mu.Unlock()
	for _, m := range members {
		m.end(ErrClosed)
	}
	for _, m := range h.leavingMembers() {
		m.endNow()
	}
	h.await("the adapter to close")
	if err := h.adapter.Close(context.WithoutCancel(ctx)); err != nil {
		h.log.Error("fanout: closing the adapter", "hub", h.id, "error", err)
	}
	adapters.Remove(h.adapter)
	h.await("publishes, questions and commands that were given up, and callbacks of PublishAsync")
	<-h.ops.Empty()
	h.await("calls of OnReady, OnJoin and OnLeave, and the hub's goroutines")
	h.pool.Stop()
	h.wakers.Stop()
	h.wg.Wait()
	h.await("Options.Logger")
	select {
	case <-h.log.Stop():
	case <-time.After(loggerPatience):
		h.closeErr = errLoggerStuck
	}
}

// isDown reports whether the adapter knows that it cannot reach the backend.
func (h *Hub) isDown() bool {
	hc, ok := h.adapter.(adapter.HealthChecker)
	return ok && hc.Health() != nil
}

// loggerPatience is how long Hub.Close waits for Options.Logger after
// everything else has ended.
const loggerPatience = time.Second

var errLoggerStuck = errors.New("fanout: close: a call of Options.Logger has not returned; its goroutine is left until it does")
