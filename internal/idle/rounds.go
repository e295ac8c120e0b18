package idle

import (
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
)

// Rounds visit things repeatedly, all of them in one round, until each is done.
// The next round begins when the first of them asks for it.
//
//	Add ─▶ fresh ─▶ Sweep: visit each ─▶ done: it is out
//	                  ▲                └▶ again: it stays
//	                  └── when the first is due ──┘
//
// The zero value is empty. One goroutine sweeps; any may add.
type Rounds[T any] struct {
	all []T       // Sweep's own, like due
	due time.Time // of the next round

	mu    locks.Mutex[locks.Innermost] // guards fresh
	fresh []entry[T]                   // that Sweep has not seen
}

type entry[T any] struct {
	thing T
	due   time.Time
}

// Add adds a thing whose first visit is due at a time. It reports whether the
// caller has to wake the goroutine that sweeps. A thing may be added again only
// after a visit has found it done.
func (r *Rounds[T]) Add(x T, due time.Time) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fresh = append(r.fresh, entry[T]{x, due})
	return len(r.fresh) == 1
}

// Sweep calls visit, without locks, for each thing if a round is due by now.
// Visit returns when to look at the thing again, or that it is done. Sweep
// returns when the next round is due, or the zero time if nothing is left.
func (r *Rounds[T]) Sweep(now time.Time, visit func(T) (again time.Time, done bool)) time.Time {
	r.mu.Lock()
	fresh := r.fresh
	r.fresh = nil
	r.mu.Unlock()
	for _, e := range fresh {
		r.all = append(r.all, e.thing)
		r.due = earlier(r.due, e.due)
	}
	if len(r.all) == 0 || now.Before(r.due) {
		return r.due
	}
	var next time.Time
	r.all = slices.DeleteFunc(r.all, func(x T) bool {
		again, done := visit(x)
		if !done {
			next = earlier(next, again)
		}
		return done
	})
	if len(r.all) == 0 {
		r.all = nil
	}
	r.due = next
	return next
}

// earlier returns the earlier of two times, of which the first may be zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
