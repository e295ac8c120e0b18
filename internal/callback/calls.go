package callback

import "sync"

// Calls is a [Queue] for things that are added one at a time: it calls Call
// with each, in order, on one goroutine that exists while there is something to
// call. Set Call and Go before the first Add.
type Calls[T any] struct {
	// Call is called with each thing that was added.
	Call func(T)
	// Go starts a goroutine that the owner of Calls waits for.
	Go func(func())

	mu      sync.Mutex // guards the next two
	queue   []T
	running bool

	// What the goroutine is calling, and how many of those it has begun.
	now   []T
	begun int
}

// Add makes Calls call Call with x, after everything that was added before.
func (c *Calls[T]) Add(x T) {
	c.mu.Lock()
	c.queue = append(c.queue, x)
	start := !c.running
	c.running = true
	c.mu.Unlock()
	if start {
		c.Go(c.run)
	}
}

// run makes the calls. If one ends the goroutine, another goroutine continues.
func (c *Calls[T]) run() {
	finished := false
	defer func() {
		if !finished {
			c.Go(c.run)
		}
	}()
	for {
		for c.begun < len(c.now) {
			x := c.now[c.begun]
			c.begun++
			c.Call(x)
		}
		if !c.more() {
			finished = true
			return
		}
	}
}

// keptCalls is how many calls there is memory for while there are none.
const keptCalls = 64

// more takes what has been added meanwhile. If that is nothing the goroutine
// ends.
func (c *Calls[T]) more() bool {
	clear(c.now)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.queue, c.begun = c.queue, c.now[:0], 0
	if len(c.now) > 0 {
		return true
	}
	c.running = false
	if cap(c.now)+cap(c.queue) > keptCalls {
		c.now, c.queue = nil, nil
	}
	return false
}
