package sharded_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/stretchr/testify/require"
)

// BenchmarkKilledConnections has the servers close the connections of a hub's
// adapter with 10,000 channels, and measures how long it takes until the last
// is subscribed again; and how much of that the servers themselves spent on it.
//
//	go test -run - -bench 'Killed|Moved' -benchtime 10x ./sharded
func BenchmarkKilledConnections(b *testing.B) {
	const channels = 10_000
	c := redistest.NewCluster(b, redistest.Options{})
	a, err := sharded.New(c.Client(b), nil)
	require.NoError(b, err)
	r := new(restorations)
	require.NoError(b, a.Attach(r))
	b.Cleanup(func() { require.NoError(b, a.Close(context.Background())) })
	inParallel(100, func(i int) {
		for n := range channels / 100 {
			if err := a.Subscribe(within(b), fmt.Sprintf("fanout:r:{room %d.%d}", i, n)); err != nil {
				b.Error(err)
			}
		}
	})
	var outages, servers []time.Duration
	for b.Loop() {
		before := subscribing(b, c)
		r.down.Store(0)
		r.up.Store(0)
		start := time.Now()
		for _, n := range c.Primaries() {
			_, err := n.KillClients(b.Context(), "pubsub")
			require.NoError(b, err)
		}
		require.Eventually(b, func() bool { return r.up.Load() == channels }, 10*time.Second, time.Millisecond)
		outages = append(outages, time.Duration(r.last.Load()-start.UnixNano()))
		servers = append(servers, subscribing(b, c)-before)
	}
	b.ReportMetric(median(outages), "outage-ms")
	b.ReportMetric(median(servers), "of-it-servers-ms")
	b.ReportMetric(0, "ns/op")
}

// subscribing is the time that the servers have spent on SSUBSCRIBE.
func subscribing(b *testing.B, c *redistest.Cluster) (sum time.Duration) {
	for _, n := range c.Primaries() {
		stats, err := n.CommandStats(b.Context())
		require.NoError(b, err)
		sum += stats["ssubscribe"].Time
	}
	return sum
}

// restorations counts what a receiver is told.
type restorations struct {
	down, up atomic.Int64
	last     atomic.Int64 // when the last Restored was, in ns since 1970
}

func (r *restorations) Receive(string, []byte) {}
func (r *restorations) Interrupted(string)     { r.down.Add(1) }
func (r *restorations) Restored(string) {
	r.last.Store(time.Now().UnixNano())
	r.up.Add(1)
}

// BenchmarkMovedSlot moves the slot of two rooms, of which one keeps a history,
// to and fro while somebody speaks in both every millisecond, and measures the
// longest silence of each.
func BenchmarkMovedSlot(b *testing.B) {
	c := redistest.NewCluster(b, redistest.Options{})
	for _, keep := range []int{0, 1000} {
		name := "plain"
		if keep > 0 {
			name = "with-history"
		}
		b.Run(name, func(b *testing.B) {
			hub := keeping(b, c.Client(b), keep)
			other := keeping(b, c.Client(b), keep)
			room := "moving " + name
			m := member(b, hub)
			require.NoError(b, hub.Room(room).Join(within(b), m))
			ctx, stop := context.WithCancel(context.Background())
			var work sync.WaitGroup
			work.Go(func() {
				for ctx.Err() == nil {
					if err := other.Room(room).Publish(context.Background(), []byte("tick")); err != nil {
						b.Error(err)
					}
					time.Sleep(time.Millisecond) // the pace
				}
			})
			var silence, missed atomic.Int64
			work.Go(func() {
				last := time.Now()
				for {
					_, err := m.Receive(ctx)
					if gap, ok := errors.AsType[*fanout.GapError](err); ok {
						missed.Add(int64(gap.Missed))
						continue
					}
					if err != nil {
						return
					}
					now := time.Now()
					silence.Store(max(silence.Load(), int64(now.Sub(last))))
					last = now
				}
			})
			var silences []time.Duration
			for b.Loop() {
				silence.Store(0)
				slot := slotOf(room)
				from := c.Owner(slot)
				to := c.Primaries()[0]
				if to == from {
					to = c.Primaries()[1]
				}
				require.NoError(b, c.MigrateSlot(b.Context(), from, to, slot))
				<-time.After(300 * time.Millisecond) // long enough for what is measured
				silences = append(silences, time.Duration(silence.Load()))
			}
			stop()
			work.Wait()
			b.ReportMetric(median(silences), "silence-ms")
			b.ReportMetric(slices.Max(silences).Seconds()*1000, "longest-ms")
			b.ReportMetric(float64(missed.Load())/float64(len(silences)), "missed/move")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// median is in milliseconds.
func median(d []time.Duration) float64 {
	slices.Sort(d)
	return d[len(d)/2].Seconds() * 1000
}
