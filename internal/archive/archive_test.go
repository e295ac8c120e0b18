package archive

import (
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

// A clock is the time in a test.
type clock struct{ time.Time }

func (c *clock) pass(d time.Duration) { c.Time = c.Add(d) }

func newClock() *clock { return &clock{time.UnixMilli(1_700_000_000_000)} }

func (s *Store) keep(t *testing.T, c *clock, name string, keep adapter.Retention) (early bool) {
	t.Helper()
	_, fresh, early := s.Append(name, &adapter.Record{Frame: []byte("x"), Messages: 1, Keep: keep}, c.Time)
	require.True(t, fresh)
	return early
}

// held counts the frames in memory, of any age.
func (s *Store) held() (n int) {
	for _, c := range s.channels {
		n += len(c.frames)
	}
	return n
}

func TestStoreSweep(t *testing.T) {
	second := adapter.Retention{Messages: 100, Age: time.Second}

	t.Run("drops what nobody asks for", func(t *testing.T) {
		s, c := new(Store), newClock()
		require.True(t, s.keep(t, c, "a", second), "somebody has to call Sweep now")
		require.False(t, s.keep(t, c, "a", second))
		for range 10 {
			c.pass(100 * time.Millisecond)
			s.keep(t, c, "b", second)
		}
		next := s.Sweep(c.Time)
		require.True(t, next.After(c.Time))
		c.Time = next
		s.Sweep(c.Time)
		require.Empty(t, s.channels["a"].frames)
		for s.held() > 0 {
			next := s.Sweep(c.Time)
			require.True(t, next.After(c.Time))
			require.False(t, s.held() > 0 && next.After(newClock().Add(2500*time.Millisecond)), "in time")
			c.Time = next
		}
	})

	t.Run("keeps the note for a day", func(t *testing.T) {
		s, c := new(Store), newClock()
		s.keep(t, c, "a", second)
		c.pass(2 * time.Second)
		next := s.Sweep(c.Time)
		require.Equal(t, uint64(1), s.Read("a", adapter.Position{}, 10, 0, second, c.Time).Head.Offset)
		require.Empty(t, s.Read("a", adapter.Position{}, 10, 0, second, c.Time).Frames)
		require.Equal(t, newClock().Add(second.Age+noteAge+1), next)
		c.Time = next
		require.Zero(t, s.Sweep(c.Time))
		require.Empty(t, s.channels)
		require.Empty(t, s.queue)
		require.True(t, s.keep(t, c, "a", second))
	})

	t.Run("wakes up for what expires earlier", func(t *testing.T) {
		s, c := new(Store), newClock()
		require.True(t, s.keep(t, c, "slow", adapter.Retention{Messages: 10, Age: time.Hour}))
		next := s.Sweep(c.Time)
		require.Equal(t, c.Add(time.Hour+1), next)
		require.True(t, s.keep(t, c, "fast", second))
		require.False(t, s.keep(t, c, "other", second))
		c.pass(1001 * time.Millisecond)
		s.Sweep(c.Time)
		require.Equal(t, 1, s.held())
		require.True(t, s.keep(t, c, "fast", second), "also for a note that gets frames again")
	})

	t.Run("drops of a busy channel in batches", func(t *testing.T) {
		s, c := new(Store), newClock()
		keep := adapter.Retention{Messages: 100_000, Age: 8 * time.Second}
		s.keep(t, c, "a", keep)
		sweeps, next := 0, c.Add(keep.Age)
		for range 20_000 { // 20 s
			c.pass(time.Millisecond)
			s.keep(t, c, "a", keep)
			if !c.Before(next) {
				next = s.Sweep(c.Time)
				sweeps++
			}
			require.LessOrEqual(t, s.held(), 9_100)
		}
		require.LessOrEqual(t, sweeps, 20)
	})

	t.Run("looks at a bounded number at a time", func(t *testing.T) {
		s, c := new(Store), newClock()
		for i := range 2*sweepAtOnce + 1 {
			s.keep(t, c, fmt.Sprint(i), second)
		}
		c.pass(2 * time.Second)
		for want := range []int{0, 1, 2} {
			next := s.Sweep(c.Time)
			require.Equal(t, max(0, (1-want)*sweepAtOnce+1), s.held())
			require.True(t, next.After(c.Time))
			c.Time = next
		}
		require.Zero(t, s.held())
	})

	t.Run("never gives a position again", func(t *testing.T) {
		s, c := new(Store), newClock()
		s.keep(t, c, "a", second)
		before := s.Read("a", adapter.Position{}, 0, 0, second, c.Time).Head
		c.pass(25 * time.Hour)
		s.Sweep(c.Time)
		c.Time = newClock().Time // the clock was set back
		s.keep(t, c, "a", second)
		require.Greater(t, s.Read("a", adapter.Position{}, 0, 0, second, c.Time).Head.Epoch, before.Epoch)
	})
}

// Frames say how old they are.
func TestStoreAge(t *testing.T) {
	s, c := new(Store), newClock()
	keep := adapter.Retention{Messages: 100, Age: time.Minute}
	s.keep(t, c, "a", keep)
	c.pass(time.Second)
	s.keep(t, c, "a", keep)
	c.pass(time.Second)
	p := s.Read("a", adapter.Position{}, 10, 0, keep, c.Time)
	require.Equal(t, 2*time.Second, p.Frames[0].Age)
	require.Equal(t, time.Second, p.Frames[1].Age)
}
