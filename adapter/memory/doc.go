// Package memory joins several hubs of one process.
//
// A [Bus] stands in for the backend, and each hub gets an [Adapter] of it:
//
//	bus := memory.NewBus()
//	a, err := fanout.New(bus.NewAdapter(), nil)
//	b, err := fanout.New(bus.NewAdapter(), nil)
//
// What is published by a is now heard by b, as if they were two processes with
// a server between them, but with nothing to install and nothing to wait for.
// It is meant for tests, for simulations, and for finding out what a program
// does when its backend fails.
//
// # What it does
//
// The bus keeps the whole adapter contract. The frames of a channel have one
// order for all. Each adapter has a queue without a bound and one goroutine
// that reads it, as a connection has, so a receiver that is slow delays its own
// hub alone and never a publisher. Frames are passed on as they are, not copied.
// Publish says exactly how many adapters a frame was handed to.
//
// Everything works in the bubbles of testing/synctest: a goroutine that waits
// here waits for a channel or a timer, never with a lock in its hands. Make the
// bus inside the bubble that uses it, and close the adapters before it ends.
//
// # Faults
//
// A link is cut with [Adapter.Cut] and mended with [Adapter.Heal]; the methods
// of the same names on Bus take down the server for all. What becomes of single
// frames is decided by a function given to [Bus.Intercept]: lost for all or for
// some, late, twice, or with an error for the publisher though they arrived.
//
//	bus.DropNext(1)                  // the server loses the next frame
//	a.Cut()                          // a is told Interrupted, and hears nothing
//	a.Heal()                         // a is told Restored, and hears again
//	bus.Intercept(func(ctx context.Context, f memory.Frame) memory.Fate {
//		return memory.Fate{Delay: 50 * time.Millisecond}
//	})
package memory
