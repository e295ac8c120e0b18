package fanout

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxReaders bounds how many readings of histories a hub has under way: enough
	// to have them travel together, few enough not to fill a server's memory with
	// answers.
	maxReaders = 128
	// slowReading is how long a reading may take until it counts as slow: others
	// do not wait for it any more.
	slowReading = 20 * time.Millisecond
	// maxSlowReaders bounds the readings that are slow. One more is broken off,
	// and begins again when it is its turn among those.
	maxSlowReaders = 1024
)

// errCrowded ends a reading that is slow while too many are.
var errCrowded = errors.New("too many slow readings of histories")

// readers run what asks the backend for history, a bounded number at a time, in
// the order of asking. What is slow, because a server is silent, is counted
// apart, so it does not keep others waiting whose servers answer. A reader's
// goroutine ends when nothing is left to do.
type readers struct {
	hub *Hub

	mu      sync.Mutex // guards all below. Innermost
	fast    lane
	slow    lane
	stopped bool
}

// A lane is work that waits, and how much is under way.
type lane struct {
	queue   []*reading
	running int
}

func (l *lane) pop() *reading {
	r := l.queue[0]
	l.queue[0] = nil
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		l.queue = nil
	}
	return r
}

// A reading is one call of the historian, and what follows from it.
type reading struct {
	run  func(r *reading)
	ctx  context.Context
	slow bool // it is in the slow lane. Guarded by readers.mu, like over
	over bool
}

// add has f run, which ends soon after the reading's context. It does not wait.
// A hub that has closed runs nothing.
func (r *readers) add(f func(*reading)) { r.push(&reading{run: f}) }

// push has a reading run in its lane.
func (r *readers) push(one *reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return
	}
	l := &r.fast
	if one.slow {
		l = &r.slow
	}
	l.queue = append(l.queue, one)
	r.start()
}

// start starts what may run. r.mu is held.
func (r *readers) start() {
	for !r.stopped && len(r.fast.queue) > 0 && r.fast.running < maxReaders {
		r.fast.running++
		one := r.fast.pop()
		r.hub.wg.Go(func() { r.run(one) })
	}
	for !r.stopped && len(r.slow.queue) > 0 && r.slow.running < maxSlowReaders {
		r.slow.running++
		one := r.slow.pop()
		r.hub.wg.Go(func() { r.run(one) })
	}
}

// run runs a reading, and others after it while it is a fast one.
func (r *readers) run(one *reading) {
	for one != nil {
		current := one
		ctx, cancel := context.WithCancelCause(r.hub.ctx)
		current.ctx = ctx
		slow := time.AfterFunc(slowReading, func() { r.mark(current, cancel) })
		current.run(current)
		slow.Stop()
		cancel(nil)
		one = r.next(current)
	}
}

// mark moves a reading that is under way to the slow lane, if there is room.
func (r *readers) mark(one *reading, cancel context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case one.slow, one.over:
	case r.slow.running < maxSlowReaders:
		one.slow = true
		r.fast.running--
		r.slow.running++
		r.start()
	default:
		cancel(errCrowded)
	}
}

// next ends a reading, and returns another one to be run in its place.
func (r *readers) next(one *reading) *reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	one.over = true
	l := &r.fast
	if one.slow {
		l = &r.slow
	}
	if r.stopped {
		r.fast.queue, r.slow.queue = nil, nil
	}
	if len(l.queue) > 0 {
		return l.pop()
	}
	l.running--
	return nil
}

// aside runs f, which waits, in a goroutine of its own. A hub that has closed runs
// nothing.
func (r *readers) aside(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stopped {
		r.hub.wg.Go(f)
	}
}

// again has f run after a while, because a reading failed. If that was slow this
// one is taken to be slow as well.
func (r *readers) again(failed *reading, d time.Duration, f func(*reading)) {
	r.mu.Lock()
	one := &reading{run: f, slow: failed.slow || context.Cause(failed.ctx) == errCrowded}
	r.mu.Unlock()
	time.AfterFunc(d, func() { r.push(one) })
}

// stop lets nothing begin any more. The hub's context, which has ended, ends
// what is under way.
func (r *readers) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
}
