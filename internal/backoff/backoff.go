// Package backoff spaces out repeated attempts: each wait is twice as long as
// the one before, up to a bound, and drawn at random between half of that and
// all of it, so that many callers that fail at one moment do not try again at
// one moment.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// The waits that hubs and adapters use.
const (
	First = 10 * time.Millisecond
	Max   = 500 * time.Millisecond
)

// A Backoff yields the waits between attempts. The zero value begins at First
// and ends at Max. One goroutine at a time uses it.
type Backoff struct {
	First, Max time.Duration // zero: the constants of these names
	next       time.Duration // zero: there was no wait yet
}

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	limit := b.step()
	return limit/2 + rand.N(limit/2+1)
}

// Bound returns the greatest wait that Next may return the next time.
func (b *Backoff) Bound() time.Duration {
	if b.next == 0 {
		return or(b.First, First)
	}
	return b.next
}

// step returns the bound of this wait and doubles that of the next.
func (b *Backoff) step() time.Duration {
	limit := b.Bound()
	b.next = min(2*limit, or(b.Max, Max))
	return limit
}

// Reset makes the next wait the first again: an attempt has succeeded.
func (b *Backoff) Reset() { b.next = 0 }

// Wait waits as long as Next says. It reports false if ctx ends first.
func (b *Backoff) Wait(ctx context.Context) bool { return Sleep(ctx, b.Next()) }

// Sleep waits for d. It reports false if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func or(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
