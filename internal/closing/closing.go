// Package closing has what the Close methods of adapters have in common: they
// run once, let no more goroutines begin, and wait for those that the adapter
// has started. A caller waits no longer than its context.
//
//	Go, Enter ─▶ tasks under way ────────────────────────────┐
//	Begin ─────▶ no more begin       ─▶ shut has returned ─▶ all have ended ─▶ Wait
package closing

import (
	"context"
	"fmt"

	"github.com/fanoutgo/fanout/internal/gate"
)

// A Closing is one adapter's. It is made by New. Its methods may be called
// concurrently.
type Closing struct {
	name  string // of the package, for errors
	tasks *gate.Gate
	begun chan struct{} // capacity 1: full once Begin has been called
	done  chan struct{} // closed when Close is complete
	err   error         // of shut; set before done is closed
}

// New returns the Closing of an adapter that is open. The name is that of the
// adapter's package.
func New(name string) *Closing {
	return &Closing{name: name, tasks: gate.New(), begun: make(chan struct{}, 1), done: make(chan struct{})}
}

// Enter begins a task that Close waits for, until Leave. It reports false if
// Close has begun.
func (c *Closing) Enter() bool { return c.tasks.Enter(1) }

// Leave ends what Enter has begun.
func (c *Closing) Leave() { c.tasks.Leave(1) }

// Go runs f on a goroutine that Close waits for. It reports false, and does not
// run f, if Close has begun.
func (c *Closing) Go(f func()) bool {
	if !c.Enter() {
		return false
	}
	go func() { // Wait waits for it
		defer c.Leave()
		f()
	}()
	return true
}

// Begin begins to close: it lets no more tasks begin, and calls shut, which
// ends what is under way, on a goroutine. Begin does not wait. Only the first
// call has an effect. A nil shut does nothing.
func (c *Closing) Begin(shut func() error) {
	select {
	case c.begun <- struct{}{}:
	default:
		return
	}
	c.tasks.Close()
	go func() { // it ends with shut and the tasks, and Wait waits for that
		defer close(c.done)
		if shut != nil {
			c.err = shut()
		}
		<-c.tasks.Empty()
	}()
}

// Wait waits until closing is complete, and returns the error of shut. If ctx
// ends first it returns an error that wraps the cause.
func (c *Closing) Wait(ctx context.Context) error {
	select {
	case <-c.done: // even if ctx has ended, too
		return c.err
	default:
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("%s: close: %w", c.name, context.Cause(ctx))
	}
}
