package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// paceTick is how often due publishes are begun, if the runtime's timers are
// that precise; often it is once a millisecond. A thread of its own that slept
// more precisely used half as much processor time as everything that is
// measured.
const paceTick = 100 * time.Microsecond

// publishAt begins n publishes at a steady rate, in all rooms in turn, whether
// or not earlier ones have ended: a publisher does not wait for slow ones. It
// returns when all have ended.
func publishAt(ctx context.Context, p redisPeer, rooms int, rate float64, n int64) error {
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	start := time.Now()
	for begun := int64(0); begun < n && ctx.Err() == nil; time.Sleep(paceTick) {
		due := min(n, int64(rate*time.Since(start).Seconds()))
		for ; begun < due; begun++ {
			batch := newBatch(1)
			batch[0].room = int(begun) % rooms
			batch[0].stamp() // here, since waiting for its goroutine is delay too
			wg.Go(func() {
				ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // its own, as requests have
				defer cancel()
				if err := p.publish(ctx, batch); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
	}
	wg.Wait()
	select {
	case err := <-failed:
		return fmt.Errorf("publish: %w", err)
	default:
		return context.Cause(ctx)
	}
}
