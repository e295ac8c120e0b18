package redistest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fake are servers that count.
type fake struct{ repaired, closed int }

func (f *fake) Repair(context.Context) error { f.repaired++; return nil }
func (f *fake) Close() error                 { f.closed++; return nil }

func TestSharing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var started []*fake
		s := &sharing[*fake]{start: func(context.Context) (*fake, error) {
			started = append(started, new(fake))
			return started[len(started)-1], nil
		}}
		use := func() *fake {
			servers, err := s.acquire()
			require.NoError(t, err)
			require.NoError(t, s.release())
			return servers
		}
		first := use()
		time.Sleep(keptIdle - time.Millisecond)
		require.Same(t, first, use(), "within the time")
		require.Equal(t, 2, first.repaired)
		time.Sleep(keptIdle - time.Millisecond)
		require.Zero(t, first.closed, "each use begins the time again")
		held, err := s.acquire()
		require.NoError(t, err)
		require.Same(t, first, held)
		time.Sleep(2 * keptIdle)
		require.Zero(t, first.closed, "while a test has them")
		require.NoError(t, s.release())
		time.Sleep(keptIdle + time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, first.closed)
		second := use()
		require.NotSame(t, first, second)
		require.NoError(t, s.close())
		require.Equal(t, []int{1, 1}, []int{first.closed, second.closed})
		require.Len(t, started, 2)
	})
}
