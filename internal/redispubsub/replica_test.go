package redispubsub

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// silent is a receiver that ignores everything.
type silent struct{}

func (silent) Receive(string, []byte) {}
func (silent) Interrupted(string)     {}
func (silent) Restored(string)        {}

func newEngine(t *testing.T, client rueidis.Client, probes time.Duration) *Engine {
	t.Helper()
	e, err := New(client, Config{Name: "test", Sharded: true, ProbeInterval: probes})
	require.NoError(t, err)
	require.NoError(t, e.Attach(silent{}))
	t.Cleanup(func() { require.NoError(t, e.Close(context.Background())) })
	return e
}

// standsAt returns the node at which a subscription stands, or "".
func standsAt(e *Engine, channel string) string {
	if home, on, _ := e.sub(channel).state(); on && home != nil {
		return home.addr
	}
	return ""
}

// A replica accepts subscriptions and messages for its primary's slots as if
// they were its own. An engine that was led there does not stay, and messages
// that reached no subscriber there go to the primary.
func TestNobodyStaysAtAReplica(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const channel = "fanout:r:{led astray}"
	primary := c.Owner(redistest.Slot(channel))
	node := c.ReplicasOf(primary)[0]
	replica := node.Addr()
	subscribed, publishes := newEngine(t, c.Client(t), -1), newEngine(t, c.Client(t), -1)
	require.NoError(t, subscribed.Subscribe(ctx, channel))
	at := func() string { return standsAt(subscribed, channel) }
	require.Equal(t, primary.Addr(), at())

	subscribed.place(subscribed.sub(channel), replica)
	require.Eventually(t, func() bool { return at() == primary.Addr() }, 20*time.Second, time.Millisecond)

	require.Eventually(t, func() bool {
		channels, err := node.Do(ctx, "PUBSUB", "SHARDCHANNELS").AsStrSlice()
		return err == nil && len(channels) == 0
	}, 20*time.Second, time.Millisecond, "it has left")

	_, _, err := publishes.topology.node(ctx, channel) // it has a table
	require.NoError(t, err)
	misled := newTable()
	misled.add(replica)
	misled.note(publishes.mode.slot(channel), replica)
	publishes.topology.current.Store(misled)
	n, err := publishes.Publish(ctx, channel, []byte("hello"))
	require.NoError(t, err)
	require.Equal(t, 1, n, "the replica has no subscribers, the primary has one")
}

// forgetful is a client that can forget a node. Clients do that with a node
// that was paused: other nodes take it for dead when the client asks them, and
// the client does not ask again.
type forgetful struct {
	rueidis.Client
	forgotten atomic.Pointer[string]
	alone     atomic.Bool  // it has forgotten all nodes
	asked     atomic.Int32 // calls of Nodes
}

func (f *forgetful) Nodes() map[string]rueidis.Client {
	f.asked.Add(1)
	if f.alone.Load() {
		return nil
	}
	nodes := maps.Clone(f.Client.Nodes())
	if addr := f.forgotten.Load(); addr != nil {
		delete(nodes, *addr)
	}
	return nodes
}

var publish = map[bool]string{false: "PUBLISH", true: "SPUBLISH"}

// A hub leaves a primary that is demoted also if its client no longer knows
// that node, because it asked at the wrong moment. The new primary passes what
// is published on to the old one, so nothing else shows that it moved.
func TestNobodyStaysAtANodeThatItsClientHasForgotten(t *testing.T) {
	t.Parallel()
	for _, sharded := range []bool{true, false} {
		for _, resp2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("sharded %v, RESP2 %v", sharded, resp2), func(t *testing.T) {
				c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				const channel = "fanout:r:{forgotten}"
				old := c.Owner(redistest.Slot(channel))
				replica := c.ReplicasOf(old)[0]
				client := &forgetful{Client: c.Client(t, func(o *rueidis.ClientOption) { o.AlwaysRESP2 = resp2 })}
				e, err := New(client, Config{Name: "test", Sharded: sharded, ProbeInterval: 200 * time.Millisecond})
				require.NoError(t, err)
				require.NoError(t, e.Attach(silent{}))
				t.Cleanup(func() { require.NoError(t, e.Close(context.Background())) })
				require.NoError(t, e.Subscribe(ctx, channel))
				require.Equal(t, old.Addr(), standsAt(e, channel))

				// A link that receives something is not probed.
				busy, rest := context.WithCancel(ctx)
				var talk sync.WaitGroup
				talk.Go(func() {
					for busy.Err() == nil {
						replica.Do(ctx, publish[sharded], channel, "hello")
						old.Do(ctx, publish[sharded], channel, "hello")
						time.Sleep(5 * time.Millisecond)
					}
				})
				defer talk.Wait()
				defer rest()

				addr := old.Addr()
				client.forgotten.Store(&addr)
				redistest.Must(t, c.Failover(ctx, replica))
				require.Eventually(t, func() bool { return standsAt(e, channel) == replica.Addr() }, 5*time.Second, time.Millisecond)
			})
		}
	}
}

// While its client knows no node at all, a hub continues to look for one.
func TestTheTopologyGoesOnToAskWhileTheClientKnowsNobody(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const channel = "fanout:r:{alone}"
	client := &forgetful{Client: c.Client(t)}
	client.alone.Store(true)
	e := newEngine(t, client, -1)
	subscribed := make(chan error, 1)
	go func() { subscribed <- e.Subscribe(ctx, channel) }()
	asked := client.asked.Load()
	require.Eventually(t, func() bool { return client.asked.Load() >= asked+3 }, 20*time.Second, time.Millisecond)
	client.alone.Store(false)
	require.NoError(t, <-subscribed)
}

// A primary that the client has forgotten, and the other nodes have not, is not
// left: nothing is interrupted.
func TestAPrimaryThatItsClientHasForgottenIsNotLeft(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const channel = "fanout:r:{forgotten}"
	primary := c.Owner(redistest.Slot(channel)).Addr()
	client := &forgetful{Client: c.Client(t)}
	e := newEngine(t, client, -1)
	require.NoError(t, e.Subscribe(ctx, channel))
	home, on, were := e.sub(channel).state()
	require.True(t, on)
	require.Equal(t, primary, home.addr)

	client.forgotten.Store(&primary)
	for range 5 { // the round that one of them begins is over when that of the next begins
		require.False(t, e.inspector.inspect(primary, true))
		asked := client.asked.Load()
		e.topology.verifyLater(home)
		require.Eventually(t, func() bool { return client.asked.Load() > asked }, 20*time.Second, time.Millisecond)
	}
	_, on, confirms := e.sub(channel).state()
	require.True(t, on)
	require.Equal(t, were, confirms, "times that it was confirmed")
}
