package redispubsub

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// silent is a receiver that wants nothing.
type silent struct{}

func (silent) Receive(string, []byte) {}
func (silent) Interrupted(string)     {}
func (silent) Restored(string)        {}

func newEngine(t *testing.T, c *redistest.Cluster) *Engine {
	t.Helper()
	e, err := New(c.Client(t), Config{Name: "test", Sharded: true, ProbeInterval: -1})
	require.NoError(t, err)
	require.NoError(t, e.Attach(silent{}))
	t.Cleanup(func() { require.NoError(t, e.Close(context.Background())) })
	return e
}

// A replica takes subscriptions and messages for its primary's slots as if they
// were its own. Who has been led there, by whatever, does not stay, and what it
// publishes there to nobody goes to the primary.
func TestNobodyStaysAtAReplica(t *testing.T) {
	c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const channel = "fanout:r:{led astray}"
	primary := c.Owner(redistest.Slot(channel))
	node := c.ReplicasOf(primary)[0]
	replica := node.Addr()
	subscribed, publishes := newEngine(t, c), newEngine(t, c)
	require.NoError(t, subscribed.Subscribe(ctx, channel))
	at := func() string {
		if home, on, _ := subscribed.sub(channel).state(); on && home != nil {
			return home.addr
		}
		return ""
	}
	require.Equal(t, primary.Addr(), at())

	subscribed.place(subscribed.sub(channel), replica)
	require.Eventually(t, func() bool { return at() == primary.Addr() }, 20*time.Second, time.Millisecond)

	require.Eventually(t, func() bool {
		channels, err := node.Do(ctx, "PUBSUB", "SHARDCHANNELS").AsStrSlice()
		return err == nil && len(channels) == 0
	}, 20*time.Second, time.Millisecond, "it has left")

	_, _, err := publishes.topology.node(ctx, channel) // it has a table
	require.NoError(t, err)
	misled := &table{addrs: []string{"", replica}}
	misled.note(publishes.slot(channel), replica)
	publishes.topology.current.Store(misled)
	n, err := publishes.Publish(ctx, channel, []byte("hello"))
	require.NoError(t, err)
	require.Equal(t, 1, n, "the replica has no subscribers, the primary has one")
}
