package adaptertest_test

import "sync"

// A gate is a sync.RWMutex for what waits while it holds one: the clock of
// testing/synctest goes on while goroutines wait for a gate, and stands still
// while they wait for a mutex. The zero value is open.
type gate struct {
	mu      sync.Mutex
	changed *sync.Cond
	writing bool
	readers int
}

func (g *gate) Lock() {
	g.await(func() bool { return !g.writing && g.readers == 0 }, func() { g.writing = true })
}

func (g *gate) RLock() {
	g.await(func() bool { return !g.writing }, func() { g.readers++ })
}

func (g *gate) TryLock() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.writing || g.readers > 0 {
		return false
	}
	g.writing = true
	return true
}

func (g *gate) Unlock() { g.change(func() { g.writing = false }) }

func (g *gate) RUnlock() { g.change(func() { g.readers-- }) }

func (g *gate) await(free func() bool, take func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed == nil {
		g.changed = sync.NewCond(&g.mu)
	}
	for !free() {
		g.changed.Wait()
	}
	take()
}

func (g *gate) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	if g.changed != nil {
		g.changed.Broadcast()
	}
}
