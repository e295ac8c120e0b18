// Package lookout drives package watch: it knows which hubs are there.
//
// Receive takes, in order, what other hubs say. One goroutine, Run, does what
// is due, and what is sent is sent on further goroutines. Run and Receive may
// report changes at the same time: a hub may be back before everything has been
// told that it was gone, so those that are told ask IsGone.
//
//	Receive ─▶ Watch ─▶ Actions ─┬─▶ probes, answers, words to everyone
//	Run ─▶ Tick ──▲              └─▶ Env.Changed: who has come, gone, died
package lookout

import (
	"context"
	"maps"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/watch"
)

const (
	// probeTimeout bounds how long the backend may take for a probe. After that
	// it says nothing about its receiver.
	probeTimeout = time.Second
	// helloPause is how long the hub waits before it says hello again, after a
	// message to everyone that could not be sent.
	helloPause = time.Second
	// leaveTimeout bounds how long Leave waits until the others have been told.
	leaveTimeout = time.Second
)

// Env is the hub that looks out. Its functions are called without locks, and
// do not wait.
type Env struct {
	Notices *notices.Sender
	// Reply sends something to the inbox of a hub.
	Reply func(to uint64, p control.Payload)
	// Changed is told which hubs have come and gone. It may be called by two
	// goroutines at a time.
	Changed func(*watch.Actions)
}

// A Lookout knows which hubs are there. Init makes it. Its methods may be
// called concurrently, but Run only once; none but Run and Leave waits.
//
// Hubs of a release that does not know these notices are not watched: see
// Others.
type Lookout struct {
	env  Env
	kick chan struct{} // capacity 1: something is due earlier

	uncounted atomic.Bool // the backend does not count receivers

	mu      locks.Mutex[locks.Innermost] // guards all below
	watch   *watch.Watch
	helloAt time.Time // when to say hello; zero: it has been said
	stage   stage     // what may be sent
	spoke   time.Time // when hello was said for the first time
}

// A stage is how far a Lookout is.
type stage uint8

const (
	// early means that the hub has not said hello. Others may know it by
	// something else that it has sent.
	early stage = iota
	// looking means that the hub says hello, and watches others.
	looking
	// left means that Leave was called. Nothing more is sent.
	left
)

// Init makes l, which is zero, the lookout of a hub.
func (l *Lookout) Init(env *Env) {
	l.env, l.kick = *env, make(chan struct{}, 1)
	l.watch = watch.New(env.Notices.Hub, uint64(time.Now().UnixMilli()), watch.Default)
}

// Run says hello once the hub's own channels are subscribed, which closes own,
// and then watches other hubs until the hub ends.
func (l *Lookout) Run(own <-chan struct{}) {
	ctx := l.env.Notices.Context
	select {
	case <-own:
	case <-ctx.Done():
		return
	}
	l.mu.Lock()
	if l.stage == early {
		l.stage, l.spoke = looking, time.Now()
	}
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
		case <-ctx.Done():
			return
		}
	}
}

// step does what is due, and says when to look again (zero: nothing is due).
func (l *Lookout) step(now time.Time) (next time.Time) {
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

// Restored says that the channel that all hubs listen to was interrupted: hubs
// may have come, and others may take this one for gone. The lock of a room may
// be held.
func (l *Lookout) Restored() { l.hello(0) }

// hello makes the hub say hello after a time: it may not have been heard, or
// may not have heard others.
func (l *Lookout) hello(after time.Duration) {
	l.mu.Lock()
	if at := time.Now().Add(after); l.stage == looking && (l.helloAt.IsZero() || at.Before(l.helloAt)) {
		l.helloAt = at
	}
	l.mu.Unlock()
	l.wake()
}

// wake makes Run look again.
func (l *Lookout) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Receive takes what another hub says: of itself, of others, or anything else,
// which is a sign of life.
func (l *Lookout) Receive(from uint64, p control.Payload) {
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
		l.wake()
	}
	l.do(&a)
}

// do carries out the actions of the watch. It sends on other goroutines.
func (l *Lookout) do(a *watch.Actions) {
	send := l.env.Notices
	l.mu.Lock()
	looks := l.stage == looking
	l.mu.Unlock()
	if looks {
		for _, m := range a.Probe {
			send.Go(func() { l.probe(m) })
		}
		for _, m := range a.Tell {
			l.env.Reply(m.Hub, m.Payload)
		}
		if len(a.Say) > 0 {
			send.Go(func() { l.say(a.Say) })
		}
	}
	l.env.Changed(a)
}

// IsGone reports whether a hub is known to have ended. The lock of a room may
// be held.
func (l *Lookout) IsGone(hub uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.watch.State(hub) == watch.Gone
}

// IsWatched reports whether a hub is there, and is watched: its end is noticed
// within seconds.
func (l *Lookout) IsWatched(hub uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.watch.State(hub)
	return s != watch.Unknown && s != watch.Gone
}

// newTime is how long after its first hello a hub may not yet know all others.
const newTime = 5 * time.Second

// IsNew reports whether the hub may not know all others. The lock of a room may
// be held.
func (l *Lookout) IsNew() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.spoke) < newTime
}

// Since returns when a hub began, by its own clock; zero if the hub is not
// known. The lock of a room may be held.
func (l *Lookout) Since(hub uint64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.watch.Since(hub)
}

// SetUncounted notes that the backend does not count receivers.
func (l *Lookout) SetUncounted() { l.uncounted.Store(true) }

// Uncounted reports whether the backend is known not to count receivers.
func (l *Lookout) Uncounted() bool { return l.uncounted.Load() }

// probe sends a probe. A probe to the hub itself goes through the backend, too.
func (l *Lookout) probe(m watch.Message) {
	send := l.env.Notices
	ctx, cancel := context.WithTimeout(send.Context, probeTimeout)
	defer cancel()
	receivers, err := send.Tell(ctx, m.Hub, m.Payload.Append(nil))
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

// say tells all hubs. If that fails, the hub says hello again; everything else
// the others find out by probes.
func (l *Lookout) say(all []control.Payload) {
	for _, p := range all {
		if err := l.env.Notices.NotifyEveryone(l.env.Notices.Frame(p)); err != nil {
			l.hello(helloPause)
		}
	}
}

// Leave is called when the hub closes. It tells the others, also if the hub has
// not said hello, since they may know it by what else it has sent. If down
// reports that they cannot be reached, they notice by themselves that the hub
// is gone. Leave returns when ctx ends, and after a second at the latest.
func (l *Lookout) Leave(ctx context.Context, down func() bool) {
	l.mu.Lock()
	if l.stage == left {
		l.mu.Unlock()
		return
	}
	a := l.watch.Leave()
	l.stage = left
	l.mu.Unlock()
	if down() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	send := l.env.Notices
	for _, p := range a.Say {
		_, _ = send.Everyone().Notify(ctx, send.Frame(p))
	}
}

// Others returns the other hubs that are there, with the time at which each was
// heard last. The heard map has the hubs that were heard in the last minutes;
// Others modifies it. Hubs that are not watched, since they have not said hello
// here, or are of an earlier release, count as there for as long as heard has
// them.
func (l *Lookout) Others(heard map[uint64]time.Time) map[uint64]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(heard, func(hub uint64, _ time.Time) bool { return l.watch.State(hub) == watch.Gone })
	for _, hub := range l.watch.Hubs() {
		if at := l.watch.LastHeard(hub); hub != l.env.Notices.Hub && !at.Before(heard[hub]) {
			heard[hub] = at
		}
	}
	return heard
}
