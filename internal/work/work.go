// Package work runs tasks that ask a backend for something, a bounded number at
// a time, in the order of asking. A task that fails is tried again after a
// while, and takes its turn among the others.
//
//	Add ─▶ fast lane ─▶ up to 128 tasks under way
//	                         │ one that takes longer than 20 ms
//	                         ▼
//	       slow lane ─▶ up to 1,024 tasks under way, fast ones that became slow among them
//	           ▲
//	           └─ Again, of a task that was slow
//
// A task that is slow, because a server is silent, does not keep others waiting
// whose servers answer. When too many are slow, one more is broken off, and
// begins again when it is its turn in the slow lane.
package work

import (
	"context"
	"errors"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
)

const (
	// maxFast is enough for the requests of tasks to travel together, and few
	// enough not to fill a server's memory with answers.
	maxFast = 128
	maxSlow = 1024
	// slowAfter is how long a task may take until it counts as slow.
	slowAfter = 20 * time.Millisecond
)

// errCrowded ends a task that is slow while too many are.
var errCrowded = errors.New("too many slow readings")

// A Pool runs tasks. Its goroutines end when nothing is left to do. See Init.
// All methods but Init may be called concurrently; none of them waits.
type Pool struct {
	ctx context.Context
	run func(func())

	mu      locks.Mutex[locks.Innermost] // guards all below
	fast    lane
	slow    lane
	stopped bool
}

// A lane is tasks that wait, and how many are under way.
type lane struct {
	queue   []*Task
	running int
}

func (l *lane) pop() *Task {
	t := l.queue[0]
	l.queue[0] = nil
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		l.queue = nil
	}
	return t
}

// A Task is one call of a function.
type Task struct {
	f    func(t *Task)
	ctx  context.Context
	slow bool // it is in the slow lane. Guarded by Pool.mu, like over
	over bool
}

// Context ends with that of the pool, and when the task is broken off.
func (t *Task) Context() context.Context { return t.ctx }

// Init makes p ready for use. All tasks have contexts of ctx. Run runs
// functions in goroutines that its owner waits for, as sync.WaitGroup.Go does.
func (p *Pool) Init(ctx context.Context, run func(func())) { p.ctx, p.run = ctx, run }

// Add makes the pool run f, which must return soon after its task's context
// ends. A pool that has stopped runs nothing.
func (p *Pool) Add(f func(*Task)) { p.push(&Task{f: f}) }

// AddAfter is Add after a while.
func (p *Pool) AddAfter(d time.Duration, f func(*Task)) {
	if d <= 0 {
		p.Add(f)
		return
	}
	time.AfterFunc(d, func() { p.Add(f) })
}

// Again makes the pool run f after a while, because a task failed. If that task
// was slow, this one counts as slow as well.
func (p *Pool) Again(failed *Task, d time.Duration, f func(*Task)) {
	p.mu.Lock()
	t := &Task{f: f, slow: failed.slow || errors.Is(context.Cause(failed.ctx), errCrowded)}
	p.mu.Unlock()
	time.AfterFunc(d, func() { p.push(t) })
}

// Aside runs f, which waits, in a goroutine of its own. A pool that has stopped
// runs nothing.
func (p *Pool) Aside(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		p.run(f)
	}
}

// Stop makes the pool begin no more tasks. Its owner then ends the context of
// the pool, which ends the tasks under way, and waits for them.
func (p *Pool) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
}

// lane returns the lane that a task is in.
func (p *Pool) lane(t *Task) *lane {
	p.mu.AssertHeld()
	if t.slow {
		return &p.slow
	}
	return &p.fast
}

// push puts a task into its lane.
func (p *Pool) push(t *Task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	l := p.lane(t)
	l.queue = append(l.queue, t)
	p.start()
}

// start starts what may run.
func (p *Pool) start() {
	p.mu.AssertHeld()
	p.startIn(&p.fast, maxFast)
	p.startIn(&p.slow, maxSlow)
}

func (p *Pool) startIn(l *lane, limit int) {
	p.mu.AssertHeld()
	for !p.stopped && len(l.queue) > 0 && l.running < limit {
		l.running++
		t := l.pop()
		p.run(func() { p.work(t) })
	}
}

// work runs a task, and others after it while there are any in its lane.
func (p *Pool) work(t *Task) {
	for t != nil {
		current := t
		ctx, cancel := context.WithCancelCause(p.ctx)
		current.ctx = ctx
		slow := time.AfterFunc(slowAfter, func() { p.isSlow(current, cancel) })
		current.f(current)
		slow.Stop()
		cancel(nil)
		t = p.next(current)
	}
}

// isSlow moves a task that is under way to the slow lane, if there is room.
func (p *Pool) isSlow(t *Task, cancel context.CancelCauseFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case t.slow, t.over:
	case p.slow.running < maxSlow:
		t.slow = true
		p.fast.running--
		p.slow.running++
		p.start()
	default:
		cancel(errCrowded)
	}
}

// next ends a task, and returns another one to be run in its place.
func (p *Pool) next(t *Task) *Task {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.over = true
	if p.stopped {
		p.fast.queue, p.slow.queue = nil, nil
	}
	l := p.lane(t)
	if len(l.queue) > 0 {
		return l.pop()
	}
	l.running--
	return nil
}
