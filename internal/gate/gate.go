// Package gate counts operations in flight, and lets none begin once it is
// closed. (A WaitGroup cannot do that: its Add must not be called concurrently
// with Wait.)
package gate

import "sync/atomic"

// A Gate is made by New. Its methods may be called concurrently.
type Gate struct {
	state atomic.Int64 // twice the number in flight, and 1 once closed
	empty chan struct{}
}

// New returns an open gate.
func New() *Gate { return &Gate{empty: make(chan struct{})} }

// Enter begins n operations, or reports false if the gate is closed.
func (g *Gate) Enter(n int) bool {
	for {
		s := g.state.Load()
		if s&1 != 0 {
			return false
		}
		if g.state.CompareAndSwap(s, s+int64(2*n)) {
			return true
		}
	}
}

// Leave ends n operations that have begun.
func (g *Gate) Leave(n int) {
	switch s := g.state.Add(int64(-2 * n)); {
	case s == 1:
		close(g.empty)
	case s < 0:
		panic("gate: more have left than have entered")
	}
}

// Close closes the gate. It is called once, and does not wait.
func (g *Gate) Close() {
	if g.state.Add(1) == 1 {
		close(g.empty)
	}
}

// Empty returns a channel that is closed when the gate is closed and no
// operation is in flight.
func (g *Gate) Empty() <-chan struct{} { return g.empty }
