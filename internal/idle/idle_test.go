package idle

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type thing struct {
	since  time.Time
	used   bool
	queued bool
}

func (x *thing) IdleSince() time.Time { return x.since }
func (x *thing) LeaveIfUsed() bool {
	if x.used {
		x.queued = false
	}
	return x.used
}

func TestQueue(t *testing.T) {
	began := time.Unix(1000, 0)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	const after = 10 * time.Second
	setUp := func(sinces ...int) (q *Queue[*thing], things []*thing) {
		q = new(Queue[*thing])
		for i, s := range sinces {
			x := &thing{since: at(s), queued: true}
			require.Equal(t, i == 0, q.Add(x))
			things = append(things, x)
		}
		return q, things
	}
	sweep := func(q *Queue[*thing], s int) (expired []*thing, next time.Time) {
		next = q.Sweep(after, at(s), func(x *thing) { expired = append(expired, x) })
		return expired, next
	}
	t.Run("expires things that have been idle for long enough", func(t *testing.T) {
		q, things := setUp(0, 1, 5)
		expired, next := sweep(q, 9)
		require.Empty(t, expired)
		require.Equal(t, at(10), next)
		expired, next = sweep(q, 11)
		require.Equal(t, things[:2], expired)
		require.Equal(t, at(15), next)
		expired, next = sweep(q, 15)
		require.Equal(t, things[2:], expired)
		require.Zero(t, next)
		require.True(t, q.Add(things[0]), "it is empty")
	})
	t.Run("drops a thing that is in use", func(t *testing.T) {
		q, things := setUp(0, 1)
		things[0].used = true
		expired, next := sweep(q, 10)
		require.Empty(t, expired)
		require.Equal(t, at(11), next)
		require.False(t, things[0].queued)
		require.True(t, things[1].queued)
	})
	t.Run("moves a thing that was used meanwhile to the back", func(t *testing.T) {
		q, things := setUp(0, 1, 2)
		things[0].since = at(8)
		expired, next := sweep(q, 12)
		require.Equal(t, things[1:], expired)
		require.Equal(t, at(18), next)
		expired, _ = sweep(q, 18)
		require.Equal(t, things[:1], expired)
	})
	t.Run("allows expire to add", func(t *testing.T) {
		q, things := setUp(0)
		other := &thing{since: at(3)}
		next := q.Sweep(after, at(10), func(*thing) { require.True(t, q.Add(other)) })
		require.Equal(t, at(13), next)
		_ = things
	})
}

func TestSweeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		began := time.Now()
		var at []time.Duration
		var due [2]time.Time
		sweep := func(i int) func(time.Time) time.Time {
			return func(now time.Time) time.Time {
				if i == 0 {
					at = append(at, now.Sub(began))
				}
				if !due[i].After(now) {
					return time.Time{}
				}
				return due[i]
			}
		}
		s := NewSweeper()
		var wg sync.WaitGroup
		wg.Go(func() { s.Run(ctx, sweep(0), sweep(1)) })
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Empty(t, at, "there is nothing to look at")
		due = [2]time.Time{began.Add(3 * time.Minute), began.Add(2 * time.Minute)}
		s.Wake()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, []time.Duration{time.Minute, 2 * time.Minute, 3 * time.Minute}, at)
		cancel()
		wg.Wait()
	})
}

func TestRounds(t *testing.T) {
	began := time.Unix(1000, 0)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	var r Rounds[string]
	var visited []string
	again := map[string]int{} // when to look at a thing again; 0: it is done
	sweep := func(s int) time.Time {
		visited = nil
		return r.Sweep(at(s), func(x string) (time.Time, bool) {
			visited = append(visited, x)
			return at(again[x]), again[x] == 0
		})
	}
	require.Zero(t, sweep(0), "there is nothing")
	require.True(t, r.Add("a", at(10)))
	require.False(t, r.Add("b", at(5)), "somebody has been told")
	require.Equal(t, at(5), sweep(1))
	require.Empty(t, visited, "it is too early")

	again["a"], again["b"] = 20, 15
	require.Equal(t, at(15), sweep(5))
	require.Equal(t, []string{"a", "b"}, visited, "all in one round")
	require.True(t, r.Add("c", at(12)))
	require.Equal(t, at(12), sweep(6), "it is due first")

	again["a"], again["c"] = 0, 30
	require.Equal(t, at(15), sweep(12))
	require.Equal(t, []string{"a", "b", "c"}, visited)
	again["b"], again["c"] = 0, 0
	require.Zero(t, sweep(15))
	require.Equal(t, []string{"b", "c"}, visited, "a is done")
	require.Zero(t, sweep(16))
	require.Empty(t, visited)
}
