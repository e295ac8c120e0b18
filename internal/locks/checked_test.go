//go:build lockcheck

package locks

import (
	"testing"

	"github.com/stretchr/testify/require"
)

type (
	outer struct{}
	inner struct{}
)

func (outer) Rank() (int, string) { return 1, "outer" }
func (inner) Rank() (int, string) { return 2, "inner" }

func TestMutex(t *testing.T) {
	var a Mutex[outer]
	var b, c Mutex[inner]
	t.Run("may be taken in the order", func(t *testing.T) {
		a.Lock()
		b.Lock()
		a.AssertHeld()
		b.AssertHeld()
		a.Unlock()
		b.Unlock()
	})
	t.Run("may not be taken against the order", func(t *testing.T) {
		b.Lock()
		defer b.Unlock()
		require.Panics(t, a.Lock)
		require.Panics(t, c.Lock, "of the same rank")
	})
	t.Run("is asserted to be held by the caller", func(t *testing.T) {
		require.Panics(t, a.AssertHeld)
		a.Lock()
		defer a.Unlock()
		done := make(chan any)
		go func() {
			defer func() { done <- recover() }()
			a.AssertHeld()
		}()
		require.NotNil(t, <-done, "another goroutine does not hold it")
	})
}

func TestRWMutex(t *testing.T) {
	var a RWMutex[outer]
	var b Mutex[inner]
	t.Run("has one place for readers and writers", func(t *testing.T) {
		a.RLock()
		func() {
			b.Lock()
			defer b.Unlock()
		}()
		a.RUnlock()
		b.Lock()
		defer b.Unlock()
		require.Panics(t, a.RLock)
		require.Panics(t, a.Lock)
	})
	t.Run("is held by its writer", func(t *testing.T) {
		a.RLock()
		require.Panics(t, a.AssertHeld)
		a.RUnlock()
		a.Lock()
		a.AssertHeld()
		a.Unlock()
	})
}
