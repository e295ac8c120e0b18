package callback

import (
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a queue whose calls are recorded, unless f makes them itself.
type recorder struct {
	Queue[int, string]
	wg  sync.WaitGroup
	mu  sync.Mutex
	got []string
}

func newRecorder(f func(n int, s string)) *recorder {
	r := new(recorder)
	r.Go = func(f func()) { r.wg.Go(f) }
	r.Call = func(n int, s string) {
		r.mu.Lock()
		for range n {
			r.got = append(r.got, s)
		}
		r.mu.Unlock()
		if f != nil {
			f(n, s)
		}
	}
	return r
}

func TestQueue(t *testing.T) {
	t.Run("calls in order", func(t *testing.T) {
		r := newRecorder(nil)
		r.Add([]int{1, 2}, "a")
		r.Add([]int{1}, "b")
		r.wg.Wait()
		require.Equal(t, []string{"a", "a", "a", "b"}, r.got)
	})
	t.Run("does not wait for a call", func(t *testing.T) {
		held := make(chan struct{})
		r := newRecorder(func(int, string) { <-held })
		for range 1000 {
			r.Add([]int{1}, "a")
		}
		close(held)
		r.wg.Wait()
		require.Len(t, r.got, 1000)
	})
	t.Run("may be added to by what it calls", func(t *testing.T) {
		var r *recorder
		r = newRecorder(func(n int, s string) {
			if s == "a" {
				r.Add([]int{n}, "b")
			}
		})
		r.Add([]int{1}, "a")
		r.wg.Wait()
		require.Equal(t, []string{"a", "b"}, r.got)
	})
	t.Run("goes on when a call ends its goroutine", func(t *testing.T) {
		r := newRecorder(func(_ int, s string) {
			if s == "a" {
				runtime.Goexit()
			}
		})
		r.Add([]int{1, 1}, "a")
		r.Add([]int{1}, "b")
		r.wg.Wait()
		require.Equal(t, []string{"a", "a", "b"}, r.got)
		r.Add([]int{1}, "a") // and when it was the last
		r.wg.Wait()
		r.Add([]int{1}, "b")
		r.wg.Wait()
		require.Equal(t, []string{"a", "a", "b", "a", "b"}, r.got)
	})
}
