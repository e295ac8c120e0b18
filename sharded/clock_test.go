package sharded_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
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
// all, whatever the clock of the hub that asks first. Nor does the next owner
// of the slot, if nobody asked before the slot moved.
func TestHistoryOfAFailoverIgnoresTheClocksOfHubs(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			if by < 0 {
				redistest.Long(t)
			}
			c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
			right := newWrongClock(t, c, 0)
			for _, n := range c.Primaries() {
				awaitTrust(t, n)
			}
			const channel, unasked = "fanout:r:{lost by a failover}", "unasked:r:{lost by a failover}"
			right.keep(channel, 5)
			right.keep(unasked, 5)
			primary := c.Owner(redistest.Slot(channel))
			replica := c.ReplicasOf(primary)[0]
			require.Eventually(t, func() bool {
				n, err := replica.Do(within(t), "DBSIZE").AsInt64()
				return err == nil && n == 4
			}, 10*time.Second, 10*time.Millisecond)
			redistest.Must(t, replica.Cut(within(t)))
			right.keep(channel, 10)
			right.keep(unasked, 10)
			redistest.Must(t, primary.Kill(within(t)))
			redistest.Must(t, replica.Heal(within(t)))
			redistest.Must(t, c.WaitHealthy(within(t)))
			wrong := newWrongClock(t, c, by)
			lost := func(channel string) {
				t.Helper()
				page := wrong.read(channel)
				require.EqualValues(t, 5, page.Head.Offset)
				require.Len(t, page.Before, 1)
				require.False(t, page.Before[0].Whole)
			}
			lost(channel)
			other := c.Primaries()[slices.IndexFunc(c.Primaries(), func(n *redistest.Node) bool { return n != replica })]
			redistest.Must(t, c.MigrateSlots(within(t), replica, other, []int{redistest.Slot(channel)}))
			lost(unasked)
		})
	}
}

// A node that has given away its last slot becomes a replica of the node that
// has it now. That is no failover: the histories have come whole.
func TestHistoryOfANodeThatGaveAllItsSlots(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Primaries: 3})
	from, to := c.Nodes()[0], c.Nodes()[1]
	slots := make([]int, redistest.Slots/3)
	channel := ""
	for i := range slots {
		slots[i] = i
	}
	for n := 0; channel == "" || redistest.Slot(channel) >= len(slots); n++ {
		channel = fmt.Sprintf("fanout:r:{given away %d}", n)
	}
	w := newWrongClock(t, c, 0)
	awaitTrust(t, to)
	w.keep(channel, 1)
	if err := c.MigrateSlots(within(t), from, to, slots); err != nil {
		require.ErrorContains(t, err, "only with masters") // it is a replica by now
	}
	require.Eventually(t, func() bool {
		replicas, err := to.Do(within(t), "CLUSTER", "REPLICAS", to.ID()).AsStrSlice()
		return err == nil && len(replicas) == 1
	}, 10*time.Second, 10*time.Millisecond)
	redistest.Must(t, c.WaitHealthy(within(t)))
	page := w.read(channel)
	require.Len(t, page.Before, 1)
	require.True(t, page.Before[0].Whole)
}

// awaitTrust waits until a server has been there for so long that a history
// which is kept from now on, and comes to it with its slot, can be whole.
func awaitTrust(t *testing.T, n *redistest.Node) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := n.Do(within(t), "INFO", "server").ToString()
		require.NoError(t, err)
		_, uptime, _ := strings.Cut(info, "uptime_in_seconds:")
		uptime, _, _ = strings.Cut(uptime, "\r")
		seconds, err := strconv.Atoi(uptime)
		require.NoError(t, err)
		return seconds >= 3
	}, 10*time.Second, 50*time.Millisecond)
}
