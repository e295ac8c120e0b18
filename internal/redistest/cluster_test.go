package redistest

import (
	"fmt"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestClusterOfEveryImage(t *testing.T) {
	OnImages(t, func(t *testing.T, image string) {
		c := NewCluster(t, Options{Image: image, Primaries: 2})
		client := c.Client(t)
		for _, n := range c.Primaries() {
			key := keyIn(c.SlotsOf(n)[0])
			require.NoError(t, set(t.Context(), client, key, "v"))
			got, err := get(t.Context(), client, key)
			require.NoError(t, err)
			require.Equal(t, "v", got)
		}
	})
}

// keyIn returns a key of the slot.
func keyIn(slot int) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("key", i); Slot(key) == slot {
			return key
		}
	}
}

func TestSlotIsTheServers(t *testing.T) {
	n := primaries(t).Nodes()[0]
	for _, key := range []string{"", "a", "123456789", "{tag}rest", "{}rest", "rest{tag", "a{{b}}c", "ключ"} {
		want, err := n.Do(t.Context(), "CLUSTER", "KEYSLOT", key).AsInt64()
		require.NoError(t, err)
		require.Equal(t, int(want), Slot(key), "key %q", key)
	}
}

func TestTopology(t *testing.T) {
	c := replicated(t)
	require.Len(t, c.Nodes(), 6)
	ps := c.Primaries()
	require.Len(t, ps, 3)
	require.Equal(t, ps[0], c.Owner(0))
	require.Equal(t, ps[2], c.Owner(Slots-1))
	total := 0
	for _, p := range ps {
		require.Len(t, c.ReplicasOf(p), 1)
		total += len(c.SlotsOf(p))
	}
	require.Equal(t, Slots, total)
}

func TestClientReachesEveryNode(t *testing.T) {
	c := replicated(t)
	nodes := c.Client(t).Nodes()
	for _, n := range c.Nodes() {
		require.Contains(t, nodes, n.Addr())
		require.NoError(t, nodes[n.Addr()].Do(t.Context(), nodes[n.Addr()].B().Ping().Build()).Error())
	}
}

func TestOptionsOfServerAndClient(t *testing.T) {
	s := NewServer(t, Options{Args: []string{"--maxclients", "123"}})
	got, err := s.Do(t.Context(), "CONFIG", "GET", "maxclients").AsStrMap()
	require.NoError(t, err)
	require.Equal(t, "123", got["maxclients"])

	client := s.Client(t, func(o *rueidis.ClientOption) { o.ClientName = "named" })
	name, err := client.Do(t.Context(), client.B().ClientGetname().Build()).ToString()
	require.NoError(t, err)
	require.Equal(t, "named", name)
}

func TestBusSentTellsPublishFromShardPublish(t *testing.T) {
	c := replicated(t)
	client := c.Client(t)
	before, err := c.BusSent(t.Context())
	require.NoError(t, err)

	const n = 10
	for range n {
		require.NoError(t, client.Do(t.Context(), client.B().Publish().Channel("c").Message("m").Build()).Error())
	}
	for range n {
		require.NoError(t, client.Do(t.Context(), client.B().Spublish().Channel("c").Message("m").Build()).Error())
	}
	after, err := c.BusSent(t.Context())
	require.NoError(t, err)
	// To every other node, and to the one replica.
	require.Equal(t, BusSent{Publish: 5 * n, PublishShard: 1 * n}, after.Sub(before))
}

func TestStatsOfANode(t *testing.T) {
	s := single(t)
	before, err := s.CommandStats(t.Context())
	require.NoError(t, err)
	cpu, err := s.CPU(t.Context())
	require.NoError(t, err)
	require.Positive(t, cpu)
	for range 3 {
		require.NoError(t, s.Do(t.Context(), "ECHO", "x").Error())
	}
	after, err := s.CommandStats(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(3), after["echo"].Calls-before["echo"].Calls)
	more, err := s.CPU(t.Context())
	require.NoError(t, err)
	require.GreaterOrEqual(t, more, cpu)
}
