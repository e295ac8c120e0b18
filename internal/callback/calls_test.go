package callback

import (
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCalls(t *testing.T) {
	var wg sync.WaitGroup
	defer wg.Wait()
	newCalls := func(f func(int)) *Calls[int] { return &Calls[int]{Call: f, Go: func(f func()) { wg.Go(f) }} }

	t.Run("are made in order", func(t *testing.T) {
		var got, want []int
		c := newCalls(func(n int) { got = append(got, n) })
		for n := range 1000 {
			c.Add(n)
			want = append(want, n)
			if n%100 == 0 {
				wg.Wait()
			}
		}
		wg.Wait()
		require.Equal(t, want, got)
	})
	t.Run("may add calls", func(t *testing.T) {
		var got []int
		var c *Calls[int]
		c = newCalls(func(n int) {
			got = append(got, n)
			if n > 0 {
				c.Add(n - 1)
			}
		})
		c.Add(3)
		wg.Wait()
		require.Equal(t, []int{3, 2, 1, 0}, got)
	})
	t.Run("go on after one that ends its goroutine", func(t *testing.T) {
		var got []int
		c := newCalls(func(n int) {
			if got = append(got, n); n == 1 {
				runtime.Goexit()
			}
		})
		for n := range 4 {
			c.Add(n)
		}
		wg.Wait()
		require.Equal(t, []int{0, 1, 2, 3}, got)
	})
	t.Run("take no memory when there are none", func(t *testing.T) {
		block := make(chan struct{})
		c := newCalls(func(int) { <-block })
		for n := range 1000 {
			c.Add(n)
		}
		close(block)
		wg.Wait()
		require.Zero(t, cap(c.queue)+cap(c.now))
	})
}
