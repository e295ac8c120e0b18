// Package budget bounds what is under way, in bytes.
package budget

import (
	"context"
	"sync/atomic"

	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notify"
)

// A Budget has a number of bytes. It is made by New. Its methods may be called
// by anyone.
type Budget struct {
	limit   int64
	used    atomic.Int64
	waiting atomic.Int32 // calls of Take that wait

	mu      locks.Mutex[locks.Innermost]
	changed notify.Notifier // there may be room. Guarded by mu
}

// New returns a budget of limit bytes.
func New(limit int64) *Budget { return &Budget{limit: limit} }

// TryTake takes n bytes, if there are as many. More than the whole budget may
// be taken when nothing else is.
func (b *Budget) TryTake(n int64) bool {
	for {
		used := b.used.Load()
		if used > 0 && used+n > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// Take is TryTake that waits until there are as many. It ends earlier with ctx
// or open, and returns the cause.
func (b *Budget) Take(ctx, open context.Context, n int64) error {
	if b.TryTake(n) {
		return nil
	}
	b.waiting.Add(1)
	defer b.waiting.Add(-1)
	for {
		b.mu.Lock()
		changed := b.changed.Wait()
		b.mu.Unlock()
		if b.TryTake(n) { // after asking to be told, so that nothing is missed
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-open.Done():
			return context.Cause(open)
		}
	}
}

// Give gives n bytes back.
func (b *Budget) Give(n int64) {
	b.used.Add(-n)
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	b.changed.Notify()
	b.mu.Unlock()
}
