package peers

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

var start = time.UnixMilli(1_700_000_000_000)

const newer = wire.OldestLevel + 1

// settled returns a table whose first hello is out, and the time when it may
// know who is there.
func settled(t *testing.T) (*Table, time.Time) {
	t.Helper()
	x := New(7, newer)
	x.Start(start)
	now := start.Add(2 * firstHello)
	s, _ := x.Next(now)
	require.True(t, s.Everyone && s.Ask)
	x.Said(true, now)
	require.Equal(t, Listening, x.State())
	now = now.Add(settleTime)
	s, _ = x.Next(now)
	require.True(t, s.Nothing())
	require.Equal(t, Settled, x.State())
	return x, now
}

func hello(hub uint64, level int) *wire.Hello { return &wire.Hello{Hub: hub, Level: level} }
func asks(hub uint64) *wire.Hello             { return &wire.Hello{Hub: hub, Level: newer, Answer: true} }

func TestLevel(t *testing.T) {
	t.Run("is the oldest until others have had the time to answer", func(t *testing.T) {
		x := New(7, newer)
		x.Start(start)
		require.Equal(t, wire.OldestLevel, x.Level(start))
		now := start.Add(2 * firstHello)
		x.Next(now)
		x.Said(true, now)
		require.Equal(t, wire.OldestLevel, x.Level(now))
		x.Next(now.Add(settleTime))
		require.Equal(t, newer, x.Level(now.Add(settleTime)))
	})
	t.Run("is the lowest of all", func(t *testing.T) {
		x, now := settled(t)
		x.Hello(hello(1, newer+1), now)
		require.Equal(t, newer, x.Level(now))
		x.Hello(hello(2, wire.OldestLevel), now)
		require.Equal(t, wire.OldestLevel, x.Level(now))
		x.Hello(hello(2, newer), now)
		require.Equal(t, newer, x.Level(now), "the hub was replaced")
	})
	t.Run("is the oldest while a hub is heard that has not said hello", func(t *testing.T) {
		x, now := settled(t)
		x.Frame(1, now)
		require.Equal(t, wire.OldestLevel, x.Level(now))
		x.Hello(hello(1, newer), now)
		require.Equal(t, newer, x.Level(now))
		x.Frame(1, now)
		require.Equal(t, newer, x.Level(now), "what it said is remembered")
	})
	t.Run("rises when a hub has not been heard for four periods", func(t *testing.T) {
		x, now := settled(t)
		x.Hello(hello(1, wire.OldestLevel), now)
		now = now.Add(3 * period)
		x.Frame(1, now)
		now = now.Add(lives*period - 1)
		require.Equal(t, wire.OldestLevel, x.Level(now))
		require.Equal(t, 2, len(x.Others(now))+1)
		require.Equal(t, newer, x.Level(now.Add(1)))
		require.Equal(t, 1, len(x.Others(now.Add(1)))+1)
	})
	t.Run("is the oldest while hubs had to be forgotten too early", func(t *testing.T) {
		x, now := settled(t)
		for hub := range uint64(maxPeers) {
			x.Hello(hello(1000+hub, newer), now.Add(time.Duration(hub)))
		}
		now = now.Add(time.Second)
		require.Equal(t, newer, x.Level(now))
		x.Hello(hello(1, newer), now)
		require.Equal(t, wire.OldestLevel, x.Level(now))
		require.Equal(t, maxPeers+1, len(x.Others(now))+1)
		later := now.Add(x.life())
		require.Equal(t, newer, x.Level(later))
	})
	t.Run("is not lowered by the hub itself", func(t *testing.T) {
		x, now := settled(t)
		require.False(t, x.Hello(&wire.Hello{Hub: 7, Level: wire.OldestLevel, Answer: true}, now))
		x.Frame(7, now)
		require.Equal(t, newer, x.Level(now))
	})
}

func TestOthers(t *testing.T) {
	others := func(x *Table, now time.Time) (hubs []uint64) {
		return slices.Sorted(maps.Keys(x.Others(now)))
	}
	t.Run("are those that have said hello, until they have not been heard for four periods", func(t *testing.T) {
		x, now := settled(t)
		x.Hello(hello(1, newer), now)
		require.Equal(t, []uint64{1}, others(x, now.Add(lives*period-1)))
		require.Empty(t, others(x, now.Add(lives*period)))
	})
	t.Run("are those that send other frames for a while, in which they can say hello", func(t *testing.T) {
		x, now := settled(t)
		x.Frame(1, now)
		x.Frame(2, now)
		x.Frame(1, now.Add(helloTime-1))
		require.Equal(t, []uint64{1, 2}, others(x, now.Add(helloTime-1)))
		require.Empty(t, others(x, now.Add(helloTime)))
		x.Frame(1, now.Add(helloTime))
		x.Hello(hello(2, newer), now.Add(helloTime))
		require.Equal(t, []uint64{2}, others(x, now.Add(helloTime)))
		require.Equal(t, wire.OldestLevel, x.Level(now.Add(helloTime)), "it may read what others publish")
	})
	t.Run("do not come back by what was sent before their end", func(t *testing.T) {
		x, now := settled(t)
		x.Hello(hello(1, newer), now)
		x.Gone(1, now)
		require.Empty(t, others(x, now))
		x.Frame(1, now)
		x.Hello(asks(1), now.Add(lateTime-1))
		require.Empty(t, others(x, now.Add(2*time.Minute-1)))
	})
	t.Run("come back when something comes from them after that", func(t *testing.T) {
		x, now := settled(t)
		x.Hello(hello(1, newer), now)
		x.Gone(1, now)
		now = now.Add(lateTime)
		x.Frame(1, now)
		require.Equal(t, []uint64{1}, others(x, now))
		x.Gone(2, now)
		require.Equal(t, []uint64{1}, others(x, now), "it was never heard of")
	})
}

func TestNext(t *testing.T) {
	t.Run("spreads first hellos", func(t *testing.T) {
		x := New(12_345_678, newer)
		x.Start(start)
		s, again := x.Next(start)
		require.True(t, s.Nothing())
		require.Equal(t, start.Add(firstHello+12_345_678), again)
	})
	t.Run("says hello every period", func(t *testing.T) {
		x, now := settled(t)
		for range 5 {
			s, again := x.Next(now)
			require.True(t, s.Nothing())
			now = again
			s, _ = x.Next(now)
			require.Equal(t, Say{Everyone: true}, s)
			x.Said(true, now)
			_, again = x.Next(now)
			require.LessOrEqual(t, again.Sub(now), period)
			require.GreaterOrEqual(t, again.Sub(now), period*3/4)
		}
	})
	t.Run("says it less often among many", func(t *testing.T) {
		x, now := settled(t)
		for hub := range uint64(1000) {
			x.Hello(hello(1000+hub, newer), now)
		}
		x.Said(true, now)
		_, again := x.Next(now)
		require.Equal(t, 300*time.Second-7, again.Sub(now))
	})
	t.Run("tries again with growing pauses", func(t *testing.T) {
		x := New(7, newer)
		x.Start(start)
		now := start.Add(time.Second)
		for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			s, _ := x.Next(now)
			require.True(t, s.Everyone && s.Ask)
			x.Said(false, now)
			require.Equal(t, Silent, x.State())
			s, again := x.Next(now)
			require.True(t, s.Nothing())
			require.Equal(t, pause*time.Second, again.Sub(now))
			now = again
		}
	})
}

func TestAnswers(t *testing.T) {
	t.Run("go to the inboxes of a few", func(t *testing.T) {
		x, now := settled(t)
		require.True(t, x.Hello(asks(1), now))
		require.False(t, x.Hello(asks(2), now))
		require.False(t, x.Hello(asks(2), now), "asks again")
		s, again := x.Next(now)
		require.True(t, s.Nothing())
		require.Equal(t, firstAnswer+7, again.Sub(now))
		s, _ = x.Next(again)
		require.Equal(t, Say{Inboxes: []uint64{1, 2}}, s)
		s, _ = x.Next(again)
		require.True(t, s.Nothing(), "once")
	})
	t.Run("are one for all when many ask", func(t *testing.T) {
		x, now := settled(t)
		for hub := range uint64(100) {
			x.Hello(asks(100+hub), now)
		}
		s, _ := x.Next(now.Add(lastAnswer))
		require.Equal(t, Say{Everyone: true}, s)
	})
	t.Run("are given once a second at most", func(t *testing.T) {
		x, now := settled(t)
		answers := 0
		for at := now; at.Before(now.Add(10 * time.Second)); at = at.Add(10 * time.Millisecond) {
			x.Hello(asks(uint64(at.UnixNano())), at)
			if s, _ := x.Next(at); !s.Nothing() {
				answers++
				x.Said(true, at)
			}
		}
		require.LessOrEqual(t, answers, 10)
		require.GreaterOrEqual(t, answers, 8)
	})
	t.Run("are not needed before the first hello", func(t *testing.T) {
		x := New(7, newer)
		x.Start(start)
		require.False(t, x.Hello(asks(1), start))
		require.Equal(t, 2, len(x.Others(start))+1)
	})
}

// A hundred hubs that start within a second say a few hellos each.
func TestAHundredHubsStartWithoutAStorm(t *testing.T) {
	const hubs = 100
	tables := make([]*Table, hubs)
	for i := range tables {
		tables[i] = New(uint64(i+1)*0x9e3779b97f4a7c15, newer)
		tables[i].Start(start)
	}
	frames := 0
	for now := start; now.Before(start.Add(10 * time.Second)); now = now.Add(5 * time.Millisecond) {
		for _, x := range tables {
			s, _ := x.Next(now)
			if s.Everyone {
				frames++
				x.Said(true, now)
			}
			for _, other := range tables {
				h := wire.Hello{Hub: x.self, Level: newer, Answer: s.Ask}
				if s.Everyone {
					other.Hello(&h, now)
				}
				for _, to := range s.Inboxes {
					if to == other.self {
						frames++
						other.Hello(&h, now)
					}
				}
			}
		}
	}
	end := start.Add(10 * time.Second)
	for _, x := range tables {
		require.Equal(t, hubs, len(x.Others(end))+1)
		require.Equal(t, newer, x.Level(end))
	}
	require.LessOrEqual(t, frames, 4*hubs)
}
