package sharded_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// heedless is a receiver of what nobody wants to know.
type heedless struct{}

func (heedless) Receive(string, []byte)                {}
func (heedless) Interrupted(string)                    {}
func (heedless) Restored(string)                       {}
func (heedless) ReceiveKept(string, adapter.KeptFrame) {}
func (heedless) Moving(string)                         {}

// A wrongClock is an adapter whose hub's clock is wrong.
type wrongClock struct {
	t  *testing.T
	h  adapter.Historian
	by time.Duration
}

func newWrongClock(t *testing.T, c *redistest.Cluster, by time.Duration) *wrongClock {
	a, err := newAdapter(c.Client(t))
	require.NoError(t, err)
	require.NoError(t, a.Attach(heedless{}))
	t.Cleanup(func() { require.NoError(t, a.Close(within(t))) })
	return &wrongClock{t, a.(adapter.Historian), by}
}

var anHour = fanout.Retention{Messages: 100, Age: time.Hour}

func (w *wrongClock) keep(channel string, n int) {
	w.t.Helper()
	for range n {
		_, _, err := w.h.Append(within(w.t), channel, adapter.Record{
			Frame: []byte("x"), Messages: 1, Time: time.Now().Add(w.by), Keep: anHour,
		})
		require.NoError(w.t, err)
	}
}

func (w *wrongClock) read(channel string) adapter.Page {
	w.t.Helper()
	page, err := w.h.History(within(w.t), channel, adapter.Query{Limit: 1000, Keep: anHour, Time: time.Now().Add(w.by)})
	require.NoError(w.t, err)
	return page
}

// The server's clock decides how old a message is, whatever the clocks of hubs
// say.
func TestHistoryIgnoresTheClocksOfHubs(t *testing.T) {
	onClusters(t, func(t *testing.T, c *redistest.Cluster) {
		right := newWrongClock(t, c, 0)
		for _, by := range []time.Duration{5 * time.Hour, -5 * time.Hour, 10_000 * time.Hour} {
			t.Run(fmt.Sprint(by), func(t *testing.T) {
				wrong := newWrongClock(t, c, by)
				channel := "fanout:r:{clocks " + t.Name() + "}"
				right.keep(channel, 5)
				wrong.keep(channel, 1)
				require.Len(t, wrong.read(channel).Frames, 6)
				right.keep(channel, 1)
				page := right.read(channel)
				require.Len(t, page.Frames, 7)
				require.EqualValues(t, 1, page.First)
				for _, f := range page.Frames {
					require.Less(t, f.Age, time.Minute)
				}
				require.InDelta(t, time.Now().UnixMilli(), page.Head.Epoch, 60_000)
			})
		}
	})
}

// A server that takes over without the latest messages does not say that it has
// all, whatever the clock of the hub that asks first.
func TestHistoryOfAFailoverIgnoresTheClocksOfHubs(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			t.Parallel()
			c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
			right := newWrongClock(t, c, 0)
			const channel = "fanout:r:{lost by a failover}"
			right.keep(channel, 5)
			primary := c.Owner(redistest.Slot(channel))
			replica := c.ReplicasOf(primary)[0]
			require.Eventually(t, func() bool {
				n, err := replica.Do(within(t), "DBSIZE").AsInt64()
				return err == nil && n == 2
			}, 10*time.Second, 10*time.Millisecond)
			redistest.Must(t, replica.Cut(within(t)))
			right.keep(channel, 10)
			redistest.Must(t, primary.Kill(within(t)))
			redistest.Must(t, replica.Heal(within(t)))
			redistest.Must(t, c.WaitHealthy(within(t)))
			page := newWrongClock(t, c, by).read(channel)
			require.EqualValues(t, 5, page.Head.Offset)
			require.Len(t, page.Before, 1)
			require.False(t, page.Before[0].Whole)
		})
	}
}
