// Package idle finds things that are no longer used. A [Queue] holds things in
// the order in which they became idle, and says which have been idle for long
// enough. [Rounds] look at things until nothing is left to do for them. A
// [Sweeper] calls functions that look for such things, when it is time.
//
//	Add ─▶ oldest … latest ─▶ Sweep: too early        ─▶ look again then
//	                                 used since       ─▶ to the back, or out
//	                                 idle long enough ─▶ expire
package idle

import (
	"context"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
)

// A Thing may be idle. Its methods are called without locks.
type Thing interface {
	// IdleSince returns when the thing last became idle.
	IdleSince() time.Time
	// LeaveIfUsed reports whether the thing is in use. If it is, the queue drops
	// it, and the thing notes that it has to be added again when it becomes idle.
	LeaveIfUsed() bool
}

// A Queue holds idle things, each once. The zero value is empty. One goroutine
// sweeps; all may add.
type Queue[T Thing] struct {
	mu   locks.Mutex[locks.Innermost] // guards list
	list []T
}

// Add adds a thing that has just become idle. It reports whether the queue was
// empty: if so, the caller wakes the goroutine that sweeps.
func (q *Queue[T]) Add(x T) (first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, x)
	return len(q.list) == 1
}

// Sweep calls expire, without locks, for each thing that has been idle for the
// time after. The thing is then out of the queue. Sweep returns when to call it
// next, or the zero time if the queue is empty.
func (q *Queue[T]) Sweep(after time.Duration, now time.Time, expire func(T)) time.Time {
	for {
		x, second, n := q.front()
		if n == 0 {
			return time.Time{}
		}
		used, since := x.LeaveIfUsed(), x.IdleSince()
		due := since.Add(after)
		early := !used && due.After(now)
		if early && (n == 1 || !since.After(second.IdleSince())) {
			return due
		}
		q.pop(early) // if it is early and became idle after the next one, it was used meanwhile
		if !used && !early {
			expire(x)
		}
	}
}

// front returns the first two things, and the number of all. Only the sweeping
// goroutine takes things out, so they stay there.
func (q *Queue[T]) front() (first, second T, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch n = len(q.list); n {
	case 0:
		q.list = nil
	case 1:
		first = q.list[0]
	default:
		first, second = q.list[0], q.list[1]
	}
	return first, second, n
}

// pop takes the first thing out, or moves it to the back.
func (q *Queue[T]) pop(toBack bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if toBack {
		q.list = append(q.list, q.list[0])
	}
	var none T
	q.list[0] = none
	q.list = q.list[1:]
}

// A Sweeper calls functions that look for what is idle.
type Sweeper struct{ kick chan struct{} }

// NewSweeper returns a Sweeper.
func NewSweeper() *Sweeper { return &Sweeper{make(chan struct{}, 1)} }

// Wake makes Run call its sweeps at once. It does not wait.
func (s *Sweeper) Wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run calls all sweeps after each Wake, and at the earliest of the times that
// they returned last. A zero time does not count. It returns when ctx ends.
func (s *Sweeper) Run(ctx context.Context, sweeps ...func(now time.Time) time.Time) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-s.kick:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		var next time.Time
		for _, sweep := range sweeps {
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
