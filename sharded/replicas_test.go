package sharded_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/logtest"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// wide are clusters with two replicas for each primary. They let tests drop
// what comes over the cluster bus. Replicas stay with their primary.
var (
	wide            = redistest.SharedClusters(withTwoReplicas)
	wideWithFaults  = redistest.SharedClusters(withTwoReplicas)
	withTwoReplicas = redistest.Options{
		Primaries: 3, Replicas: 2,
		Args: []string{"--enable-debug-command", "yes", "--cluster-allow-replica-migration", "no"},
	}
)

// reads makes adapters that read rooms from some nodes.
func reads(from sharded.ReadFrom) rediscontract.NewAdapter {
	return func(client rueidis.Client) (fanout.Adapter, error) {
		return sharded.New(client, &sharded.Options{
			ReadFrom:      from,
			ProbeInterval: rediscontract.ProbeInterval,
			ProbeTimeout:  rediscontract.ProbeTimeout,
		})
	}
}

// Tests of replicas share two clusters, each one after the other.
func TestReplicas(t *testing.T) {
	t.Parallel()
	redistest.OnImages(t, func(t *testing.T, image string) {
		t.Run("contract", func(t *testing.T) {
			cluster := func(t testing.TB) *redistest.Cluster { return wide(t, image) }
			rediscontract.RunCluster(t, cluster, reads(sharded.Replicas), rediscontract.Most(image))
		})
		t.Run("report the last message if it is lost", func(t *testing.T) { testLastMessage(t, wide(t, image)) })
	})
	t.Run("ReadFrom", testReadFrom)
}

func TestFaultsOfReplicas(t *testing.T) {
	t.Parallel()
	for _, f := range replicaFaults {
		t.Run(f.name, func(t *testing.T) { testReplicaFault(t, f) })
	}
}

// replicaFaults are what happens to the nodes of the shard of the first room,
// whose rooms are read from its replicas.
var replicaFaults = []replicaFault{
	{name: "killing a replica", happen: killReplica},
	{name: "pausing replicas for 1.5 s", happen: pauseReplicas(1500 * time.Millisecond), long: true},
	{name: "replicas hear nothing of their primary", happen: deafReplicas},
	{name: "killing the primary", happen: killPrimary, loses: true},
	{name: "manual failover", happen: failover, two: true, loses: true, long: true},
	{name: "moving slots one by one", happen: moveRooms, long: true},
	{name: "a replica gets another primary", happen: detachReplica, long: true},
	{name: "pausing a replica until its rooms have moved", happen: pauseReplica, long: true},
	{name: "moving 1000 slots", happen: move1000, long: true},
	{name: "pausing the primary for 4 s", happen: pause(4 * time.Second), two: true, loses: true, long: true},
	{name: "a replica off the network", happen: replicaOffNetwork, long: true},
	{name: "CLIENT KILL TYPE pubsub", happen: killClients, long: true},
	{name: "a hub cut from all nodes", happen: cutAll, long: true},
}

type replicaFault struct {
	name   string
	happen func(t *testing.T, c *redistest.Cluster, w *world)
	two    bool // see faults
	loses  bool // a primary may lose what it has accepted, histories too
	long   bool
}

// For every member and room, received and reported missed is what was
// published, whatever happens to the replicas or their primary. In rooms with a
// history nothing is missed, as long as the primary is not replaced.
func testReplicaFault(t *testing.T, f replicaFault) {
	if f.long {
		redistest.Long(t)
	}
	c := wideWithFaults(t, redistest.DefaultImage)
	rooms := append(roomNames(9), kept+"1", kept+"2", kept+"3")
	w := newWorldOf(t, c, 3, rooms, reads(sharded.Replicas))
	w.two = f.two
	readAtReplicas(t, c, w.rooms)
	f.happen(t, c, w)
	w.resumes()
	w.verdict()
	for hub, rooms := range w.heard {
		for room, r := range rooms {
			if strings.HasPrefix(room, kept) && !f.loses {
				require.Zero(t, r.missed+r.unknown, "gaps of hub %d in room %s", hub, room)
			}
		}
	}
}

// readers returns the replicas of a room's shard at which the room is
// subscribed, and whether its primary is one of the nodes where it is.
func readers(t testing.TB, c *redistest.Cluster, room string) (replicas []*redistest.Node, primary bool) {
	owner := c.Owner(slotOf(room))
	subscribed := func(n *redistest.Node) bool {
		channels, err := n.Do(t.Context(), "PUBSUB", "SHARDCHANNELS", "fanout:r:{"+room+"}").AsStrSlice()
		return err == nil && len(channels) > 0
	}
	for _, n := range c.ReplicasOf(owner) {
		if subscribed(n) {
			replicas = append(replicas, n)
		}
	}
	return replicas, subscribed(owner)
}

// readAtReplicas waits until rooms are read at replicas, and only there.
func readAtReplicas(t testing.TB, c *redistest.Cluster, rooms []string) {
	t.Helper()
	for _, room := range rooms {
		require.Eventually(t, func() bool {
			replicas, primary := readers(t, c, room)
			return len(replicas) > 0 && !primary
		}, 20*time.Second, 10*time.Millisecond, "room %s is read at replicas", room)
	}
}

// aReader returns a replica at which the first room is read.
func aReader(t *testing.T, c *redistest.Cluster, w *world) *redistest.Node {
	t.Helper()
	replicas, _ := readers(t, c, w.rooms[0])
	require.NotEmpty(t, replicas)
	return replicas[0]
}

// leavesNode waits until nobody reads the first room at a node.
func (w *world) leavesNode(c *redistest.Cluster, n *redistest.Node) {
	w.t.Helper()
	w.until("the rooms have moved", func() bool {
		replicas, _ := readers(w.t, c, w.rooms[0])
		return !slices.Contains(replicas, n)
	})
}

func killReplica(t *testing.T, c *redistest.Cluster, w *world) {
	n := aReader(t, c, w)
	redistest.Must(t, n.Kill(within(t)))
	w.resumes()
	redistest.Must(t, n.Start(within(t)))
	redistest.Must(t, c.WaitHealthy(within(t)))
}

// pauseReplicas pauses the replicas of the shard, for less than the time after
// which they are left. Their primary gives up its connections to them, and what
// it has sent over them may be lost.
func pauseReplicas(d time.Duration) func(*testing.T, *redistest.Cluster, *world) {
	return func(t *testing.T, c *redistest.Cluster, w *world) {
		replicas := c.ReplicasOf(c.Owner(slotOf(w.rooms[0])))
		for _, n := range replicas {
			redistest.Must(t, n.Pause(within(t)))
		}
		<-time.After(d) // the fault is its length
		for _, n := range replicas {
			redistest.Must(t, n.Unpause(within(t)))
		}
	}
}

func pauseReplica(t *testing.T, c *redistest.Cluster, w *world) {
	n := aReader(t, c, w)
	redistest.Must(t, n.Pause(within(t)))
	w.resumes()
	redistest.Must(t, n.Unpause(within(t)))
	redistest.Must(t, c.WaitHealthy(within(t)))
}

func detachReplica(t *testing.T, c *redistest.Cluster, w *world) {
	from, to := two(c, w)
	n := aReader(t, c, w)
	require.NoError(t, n.Do(within(t), "CLUSTER", "REPLICATE", to.ID()).Error())
	w.leavesNode(c, n)
	w.resumes()
	require.NoError(t, n.Do(within(t), "CLUSTER", "REPLICATE", from.ID()).Error())
	redistest.Must(t, c.WaitHealthy(within(t)))
}

// publishShardPackets is the type of packets of the cluster bus that carry what
// is published in a shard.
const publishShardPackets = "10"

// deafReplicas has the replicas of the shard drop what their primary passes on,
// though their connections stand.
func deafReplicas(t *testing.T, c *redistest.Cluster, w *world) {
	replicas := c.ReplicasOf(c.Owner(slotOf(w.rooms[0])))
	for _, n := range replicas {
		require.NoError(t, n.Do(within(t), "DEBUG", "DROP-CLUSTER-PACKET-FILTER", publishShardPackets).Error())
	}
	w.until("the rooms have moved to the primary", func() bool {
		replicas, primary := readers(t, c, w.rooms[0])
		return primary && len(replicas) == 0
	})
	w.resumes()
	for _, n := range replicas {
		require.NoError(t, n.Do(within(t), "DEBUG", "DROP-CLUSTER-PACKET-FILTER", "-1").Error())
	}
	readAtReplicas(t, c, w.rooms) // and they return
}

func replicaOffNetwork(t *testing.T, c *redistest.Cluster, w *world) {
	n := aReader(t, c, w)
	redistest.Must(t, n.Cut(within(t)))
	w.resumes()
	redistest.Must(t, n.Heal(within(t)))
	redistest.Must(t, c.WaitHealthy(within(t)))
}

// A message that a replica did not get is reported though nothing is published
// after it.
func testLastMessage(t *testing.T, c *redistest.Cluster) {
	a, b := newHubOf(t, c.Client(t), reads(sharded.PrimariesUncounted)), newHubOf(t, c.Client(t), reads(sharded.Replicas))
	m, err := b.Connect(nil)
	require.NoError(t, err)
	const room = "last"
	require.NoError(t, b.Room(room).Join(within(t), m))
	say := func(text string) { require.NoError(t, a.Room(room).Publish(within(t), []byte(text))) }
	say("heard")
	msg, err := m.Receive(within(t))
	require.NoError(t, err)
	require.Equal(t, "heard", string(msg.Data))

	replicas, primary := readers(t, c, room)
	require.False(t, primary)
	require.Len(t, replicas, 1)
	deaf := func(packets string) {
		require.NoError(t, replicas[0].Do(within(t), "DEBUG", "DROP-CLUSTER-PACKET-FILTER", packets).Error())
	}
	deaf(publishShardPackets)
	say("lost")
	began := time.Now()
	_, err = m.Receive(within(t))
	gap := new(fanout.GapError)
	require.ErrorAs(t, err, &gap)
	require.True(t, gap.Unknown)
	require.Less(t, time.Since(began), rediscontract.ProbeTimeout+10*rediscontract.ProbeInterval)
	t.Logf("reported after %v", time.Since(began).Round(time.Millisecond))
	deaf("-1")
	say("heard again")
	for {
		msg, err = m.Receive(within(t))
		if err == nil {
			break
		}
		require.ErrorAs(t, err, &gap)
	}
	require.Equal(t, "heard again", string(msg.Data))
}

func testReadFrom(t *testing.T) {
	t.Run("spreads hubs over nodes, and questions are complete", func(t *testing.T) {
		c := wide(t, redistest.DefaultImage)
		const hubs, room = 12, "spread"
		var all []*fanout.Hub
		for i := range hubs {
			h := newHubOf(t, c.Client(t), reads([]sharded.ReadFrom{sharded.AllNodes, sharded.Replicas}[i%2]))
			m, err := h.Connect(nil)
			require.NoError(t, err)
			require.NoError(t, h.Room(room).Join(within(t), m))
			all = append(all, h)
		}
		all = append(all, newHubOf(t, c.Client(t), reads(sharded.PrimariesUncounted)))
		for _, h := range all {
			require.Eventually(t, func() bool { return h.Stats().Hubs == hubs+1 }, 10*time.Second, time.Millisecond, "it knows all others")
			n, err := h.In(room).Count(within(t))
			require.NoError(t, err)
			require.Equal(t, hubs, n)
		}
		replicas, _ := readers(t, c, room)
		require.Len(t, replicas, 2, "some of 6 hubs and more read at each replica")
		for _, n := range replicas { // a hub's own channels are not there
			channels, err := n.Do(t.Context(), "PUBSUB", "SHARDCHANNELS", "fanout:[^r]*").AsStrSlice()
			require.NoError(t, err)
			require.Empty(t, channels)
		}
	})
	t.Run("needs the documented rights", func(t *testing.T) {
		replicaRights(t, wide(t, redistest.DefaultImage))
	})
	t.Run("falls back to primaries, and says why", func(t *testing.T) {
		for _, test := range []struct {
			name, rights string
			option       func(*rueidis.ClientOption)
			says         string
		}{
			{"without rights", "-cluster|links", func(*rueidis.ClientOption) {}, "reading from replicas needs CLUSTER LINKS"},
			{"with RESP2", "+@all", func(o *rueidis.ClientOption) { o.AlwaysRESP2 = true }, "reading from replicas needs RESP3"},
		} {
			t.Run(test.name, func(t *testing.T) {
				c := wide(t, redistest.DefaultImage)
				for _, n := range c.Nodes() {
					require.NoError(t, n.Do(t.Context(), "ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", test.rights).Error())
				}
				lines := new(logtest.Text)
				a, err := sharded.New(c.Client(t, test.option, func(o *rueidis.ClientOption) { o.Username, o.Password = "limited", "secret" }), &sharded.Options{
					ReadFrom: sharded.Replicas, ProbeInterval: rediscontract.ProbeInterval, ProbeTimeout: rediscontract.ProbeTimeout, Logger: slog.New(slog.NewTextHandler(lines, nil)),
				})
				require.NoError(t, err)
				h, err := fanout.New(a, nil)
				require.NoError(t, err)
				defer h.Close(within(t))
				m, err := h.Connect(nil)
				require.NoError(t, err)
				require.NoError(t, h.Room(test.name).Join(within(t), m))
				require.NoError(t, h.Room(test.name).Publish(within(t), []byte("hello")))
				_, err = m.Receive(within(t))
				require.NoError(t, err)
				replicas, primary := readers(t, c, test.name)
				require.Empty(t, replicas)
				require.True(t, primary)
				require.Eventually(t, func() bool { return strings.Contains(lines.String(), test.says) }, 10*time.Second, time.Millisecond)
				require.NoError(t, h.Health(within(t)))
			})
		}
	})
	t.Run("has no effect on a single server, which the log says", func(t *testing.T) {
		lines := new(logtest.Text)
		a, err := sharded.New(server(t).Client(t), &sharded.Options{ReadFrom: sharded.Replicas, Logger: slog.New(slog.NewTextHandler(lines, nil))})
		require.NoError(t, err)
		h, err := fanout.New(a, nil)
		require.NoError(t, err)
		defer h.Close(within(t))
		m, err := h.Connect(nil)
		require.NoError(t, err)
		require.NoError(t, h.Room("x").Join(within(t), m))
		require.Eventually(t, func() bool { return strings.Contains(lines.String(), "rooms are read from the primary") }, 10*time.Second, time.Millisecond)
	})
	t.Run("is checked", func(t *testing.T) {
		for _, o := range []*sharded.Options{{ReadFrom: 7}, {ReadFrom: sharded.Replicas, ProbeInterval: -1}} {
			_, err := sharded.New(server(t).Client(t), o)
			require.True(t, errors.Is(err, fanout.ErrInvalidOption), fmt.Sprint(err))
			require.ErrorContains(t, err, "ReadFrom")
		}
	})
}
