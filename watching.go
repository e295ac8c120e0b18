package fanout

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/watch"
)

const (
	// probeTimeout bounds how long the backend may take for a probe. After that
	// it says nothing about its receiver.
	probeTimeout = time.Second
	// helloPause is how long after a word to everyone that could not be sent
	// the hub says hello again.
	helloPause = time.Second
	// leaveTimeout bounds how long Close waits until the others have been told.
	leaveTimeout = time.Second
)

// A lookout knows which hubs are there: it drives package watch, for a hub that
// has a backend. What others say comes by way of the switchboard, in order; one
// goroutine, run, is there for what is due.
//
// Hubs of a release that does not know these notices are in hellos only: see
// Hub.others.
type lookout struct {
	hub  *Hub
	kick chan struct{} // capacity 1: something is due earlier

	blind atomic.Bool // the backend does not count receivers

	mu      locks.Mutex[locks.Innermost] // guards all below
	watch   *watch.Watch
	helloAt time.Time // when to say hello; zero: it has been said
	silent  bool      // nothing is said: not yet, or not any more
	spoke   time.Time // when hello was said for the first time
}

func (l *lookout) init(h *Hub) {
	l.hub, l.kick, l.silent = h, make(chan struct{}, 1), true
	l.watch = watch.New(h.num, uint64(time.Now().UnixMilli()), watch.Default)
}

// run says hello once the hub's own channels are subscribed, and then watches
// other hubs until the hub ends.
func (l *lookout) run() {
	h := l.hub
	select {
	case <-h.own.Done():
	case <-h.ctx.Done():
		return
	}
	l.mu.Lock()
	l.silent, l.spoke = false, time.Now()
	l.mu.Unlock()
	l.hello(0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if next := l.step(time.Now()); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-timer.C:
		case <-l.kick:
		case <-h.ctx.Done():
			return
		}
	}
}

// step does what is due, and says when to look again (zero: nothing is due).
func (l *lookout) step(now time.Time) (next time.Time) {
	due := func(at time.Time) bool { return !at.IsZero() && !now.Before(at) }
	var hello, tick watch.Actions
	l.mu.Lock()
	if due(l.helloAt) {
		l.helloAt = time.Time{}
		hello = l.watch.Start()
	}
	if due(l.watch.Next()) {
		tick = l.watch.Tick(now)
	}
	next = l.watch.Next()
	if !l.helloAt.IsZero() && (next.IsZero() || l.helloAt.Before(next)) {
		next = l.helloAt
	}
	l.mu.Unlock()
	l.do(&hello)
	l.do(&tick)
	return next
}

// hello has the hub say hello after a while: it may not have been heard, or may
// not have heard others. It does not wait.
func (l *lookout) hello(after time.Duration) {
	l.mu.Lock()
	if at := time.Now().Add(after); !l.silent && (l.helloAt.IsZero() || at.Before(l.helloAt)) {
		l.helloAt = at
	}
	l.mu.Unlock()
	signal(l.kick)
}

// receive takes what another hub says: of itself, of others, or anything else,
// which is a sign of life.
func (l *lookout) receive(from uint64, p control.Payload) {
	now := time.Now()
	var a watch.Actions
	l.mu.Lock()
	was := l.watch.Next()
	switch p := p.(type) {
	case *control.Hello:
		a = l.watch.Hello(from, p, now)
	case *control.Verdict:
		a = l.watch.Verdict(from, p, now)
	case *control.Probe:
		a = l.watch.Receive(from, p, now)
	case *control.Roster:
		a = l.watch.Roster(from, p, now)
	default:
		a = l.watch.Heard(from, now)
	}
	next := l.watch.Next()
	sooner := !next.IsZero() && (was.IsZero() || next.Before(was))
	l.mu.Unlock()
	if sooner {
		signal(l.kick)
	}
	l.do(&a)
}

// do carries out what the watch wants. Whatever is sent is sent beside.
func (l *lookout) do(a *watch.Actions) {
	h := l.hub
	l.mu.Lock()
	silent := l.silent
	l.mu.Unlock()
	if !silent {
		for _, m := range a.Probe {
			h.wg.Go(func() { l.probe(m) })
		}
		for _, m := range a.Tell {
			h.switchboard.reply(m.Hub, m.Payload)
		}
		if len(a.Say) > 0 {
			h.wg.Go(func() { l.say(a.Say) })
		}
	}
	for _, hub := range slices.Concat(a.Died, a.Left) {
		h.hellos.Gone(hub)
		h.switchboard.hubGone(hub)
	}
	for _, hub := range a.Died {
		h.announcer.each(func(p *roomPresence) { p.hubGone(hub, false) })
	}
	for _, hub := range a.Left {
		h.announcer.each(func(p *roomPresence) { p.hubGone(hub, true) })
	}
	for _, hub := range a.Came {
		h.announcer.each(func(p *roomPresence) { p.hubCame(hub) })
	}
	if a.Back {
		h.announcer.each((*roomPresence).back)
	}
}

// newTime is how long after its first hello a hub may not know all others.
const newTime = 5 * time.Second

// isNew reports whether the hub may not know all others.
func (l *lookout) isNew() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.spoke) < newTime
}

// takesForGone reports whether a hub is known to have ended.
func (l *lookout) takesForGone(hub uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.watch.State(hub) == watch.Gone
}

// probe sends a probe. One to the hub itself takes the same way, by the
// backend.
func (l *lookout) probe(m watch.Message) {
	h := l.hub
	ctx, cancel := context.WithTimeout(h.ctx, probeTimeout)
	defer cancel()
	o := h.wayTo(hubID(m.Hub))
	defer o.unhold(1)
	receivers, err := o.notify(ctx, h.controlFrame(m.Payload.Append(nil)))
	outcome := watch.Somebody
	switch {
	case err != nil:
		outcome = watch.Failed
	case receivers == 0:
		outcome = watch.Nobody
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch.Probed(m.Hub, outcome, time.Now())
}

// say tells everyone. If that fails, what it was is found out in another way,
// but for the hub's own hello.
func (l *lookout) say(all []control.Payload) {
	h := l.hub
	for _, p := range all {
		ctx, cancel := context.WithTimeout(h.ctx, noticeTimeout)
		_, err := h.everyone.way().notify(ctx, h.controlFrame(p.Append(nil)))
		cancel()
		if err != nil {
			l.hello(helloPause)
		}
	}
}

// leave tells the others that the hub closes. If that fails they notice that it
// is gone. It waits no longer than ctx and leaveTimeout, and not at all if the
// backend is known to be down.
func (l *lookout) leave(ctx context.Context) {
	h := l.hub
	l.mu.Lock()
	if l.silent {
		l.mu.Unlock()
		return
	}
	a := l.watch.Leave()
	l.silent = true
	l.mu.Unlock()
	if hc, ok := h.adapter.(adapter.HealthChecker); ok && hc.Health() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	for _, p := range a.Say {
		_, _ = h.everyone.way().notify(ctx, h.controlFrame(p.Append(nil)))
	}
}

// others returns the other hubs that are there, with the time at which each was
// noted for the last time. Those of an earlier release are not watched: they
// are there until nothing has been heard of them for some minutes.
func (h *Hub) others() map[uint64]time.Time {
	all := h.hellos.Others()
	l := &h.lookout
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(all, func(hub uint64, _ time.Time) bool { return l.watch.State(hub) == watch.Gone })
	for _, hub := range l.watch.Hubs() {
		if heard := l.watch.LastHeard(hub); hub != h.num && !heard.Before(all[hub]) {
			all[hub] = heard
		}
	}
	return all
}

// known returns the hubs that are there, with this one.
func (h *Hub) known() []ask.Known {
	there := []ask.Known{{Hub: h.num, Heard: time.Now()}}
	if h.alone {
		return there
	}
	for hub, heard := range h.others() {
		there = append(there, ask.Known{Hub: hub, Heard: heard})
	}
	return there
}

// hubGone tells those that ask that a hub is gone, and ends what is answered to
// it.
func (s *switchboard) hubGone(hub uint64) {
	s.mu.Lock()
	askings := slices.Collect(maps.Values(s.questions))
	for key, a := range s.answers {
		if key.Hub == hub {
			a.cancel()
		}
	}
	s.mu.Unlock()
	for _, a := range askings {
		a.tell(news{from: hub, gone: true})
	}
}
