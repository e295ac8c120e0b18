//go:build lockcheck

package locks

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// A Mutex is a sync.Mutex that knows its holder.
type Mutex[R Rank] struct {
	mu     sync.Mutex
	holder atomic.Uintptr // the goroutine's number; 0: nobody
}

// Lock locks m. It panics if the order of locks is not kept.
func (m *Mutex[R]) Lock() {
	g := goroutine()
	enter[R](g)
	m.mu.Lock()
	m.holder.Store(g)
}

// TryLock tries to lock m. For the order of locks it counts like Lock.
func (m *Mutex[R]) TryLock() bool {
	if !m.mu.TryLock() {
		return false
	}
	g := goroutine()
	enter[R](g)
	m.holder.Store(g)
	return true
}

// Unlock unlocks m.
func (m *Mutex[R]) Unlock() {
	g := m.holder.Swap(0)
	leave[R](g)
	m.mu.Unlock()
}

// AssertHeld panics unless the calling goroutine holds m.
func (m *Mutex[R]) AssertHeld() { assert[R](m.holder.Load()) }

// A RWMutex is a sync.RWMutex that knows who holds it for writing.
type RWMutex[R Rank] struct {
	mu     sync.RWMutex
	holder atomic.Uintptr
}

// Lock locks m for writing. It panics if the order of locks is not kept.
func (m *RWMutex[R]) Lock() {
	g := goroutine()
	enter[R](g)
	m.mu.Lock()
	m.holder.Store(g)
}

// Unlock unlocks m for writing.
func (m *RWMutex[R]) Unlock() {
	g := m.holder.Swap(0)
	leave[R](g)
	m.mu.Unlock()
}

// RLock locks m for reading. It panics if the order of locks is not kept.
func (m *RWMutex[R]) RLock() {
	enter[R](goroutine())
	m.mu.RLock()
}

// RUnlock unlocks m for reading, on the goroutine that locked it.
func (m *RWMutex[R]) RUnlock() {
	leave[R](goroutine())
	m.mu.RUnlock()
}

// AssertHeld panics unless the calling goroutine holds m for writing.
func (m *RWMutex[R]) AssertHeld() { assert[R](m.holder.Load()) }

// held are the places in the order of the locks that each goroutine holds.
var (
	heldMu sync.Mutex
	held   = make(map[uintptr][]int)
)

func enter[R Rank](g uintptr) {
	var r R
	place, name := r.Rank()
	heldMu.Lock()
	defer heldMu.Unlock()
	if list := held[g]; len(list) > 0 && slices.Max(list) >= place {
		panic(fmt.Sprintf("locks: %s (%d) is taken while locks of the places %v are held", name, place, list))
	}
	held[g] = append(held[g], place)
}

func leave[R Rank](g uintptr) {
	var r R
	place, name := r.Rank()
	heldMu.Lock()
	defer heldMu.Unlock()
	list := held[g]
	i := slices.Index(list, place)
	if i < 0 {
		panic(fmt.Sprintf("locks: %s is released by a goroutine that does not hold it", name))
	}
	if len(list) == 1 {
		delete(held, g)
	} else {
		held[g] = slices.Delete(list, i, i+1)
	}
}

func assert[R Rank](holder uintptr) {
	if holder != goroutine() {
		var r R
		_, name := r.Rank()
		panic(fmt.Sprintf("locks: the caller does not hold %s", name))
	}
}
