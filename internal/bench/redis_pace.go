package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// paceTick is how often those publishes are begun that are due, if the runtime's
// timers can; often it is once a millisecond. A thread of its own that slept more
// precisely used half as much of the processors as all that is measured.
const paceTick = 100 * time.Microsecond

// publishAt begins n publishes at a steady rate, round all rooms, whether those
// before have ended or not: nobody who has something to say waits for the slow
// ones. It returns when all have ended.
func publishAt(ctx context.Context, p redisPeer, rooms int, rate float64, n int64) error {
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	start := time.Now()
	for begun := int64(0); begun < n && ctx.Err() == nil; time.Sleep(paceTick) {
		due := min(n, int64(rate*time.Since(start).Seconds()))
		for ; begun < due; begun++ {
			batch := newBatch(1)
			batch[0].room = int(begun) % rooms
			batch[0].stamp() // here: that its goroutine has to wait is delay too
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
