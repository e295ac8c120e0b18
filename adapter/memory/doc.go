// Package memory joins several hubs of one process.
//
// A [Bus] stands in for the backend, and each hub gets an [Adapter] of it:
//
//	bus := memory.NewBus()
//	a, err := fanout.New(bus.NewAdapter(), nil)
//	b, err := fanout.New(bus.NewAdapter(), nil)
//
// Members of b now receive what is published by a, as if a and b were two
// processes with a server between them. Use it in tests, in simulations, and to
// find out what a program does when its backend fails.
//
// # What it does
//
// The bus keeps the whole adapter contract. The frames of a channel have one
// order for all subscribers. Each adapter has an unbounded queue and one
// goroutine that reads it, so a slow receiver delays its own hub and never a
// publisher. Frames are passed on without copying. Publish returns exactly how
// many adapters get a frame.
//
// Everything works in the bubbles of testing/synctest: a goroutine that waits
// here waits for a channel or a timer, never while it holds a lock. Make the
// bus inside the bubble that uses it, and close the adapters before the bubble
// ends.
//
// # Faults
//
// [Adapter.Cut] cuts a link and [Adapter.Heal] repairs it; the methods of the
// same names on Bus do so for all adapters, as if the server were down. A
// function that is given to [Bus.Intercept] decides what happens to single
// frames: they may be lost for all or some subscribers, be late, arrive twice,
// or arrive although the publisher gets an error.
//
//	bus.DropNext(1)                  // the server loses the next frame
//	a.Cut()                          // a's receiver is told Interrupted, and gets nothing
//	a.Heal()                         // a's receiver is told Restored, and gets frames again
//	bus.Intercept(func(ctx context.Context, f memory.Frame) memory.Fate {
//		return memory.Fate{Delay: 50 * time.Millisecond}
//	})
package memory
