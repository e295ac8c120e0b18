package migrate_test

import (
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/internal/contracttest"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// An end is one of the two backends of a migration: servers, and the adapters
// that reach them.
type end struct {
	newAdapter rediscontract.NewAdapter
	cluster    func(testing.TB) *redistest.Cluster
	server     func(testing.TB) *redistest.Server // if there is no cluster
}

func (e end) nodes(t testing.TB, n int) adaptertest.Nodes {
	if e.cluster != nil {
		return rediscontract.ClusterNodes(t, e.cluster(t), n, e.newAdapter)
	}
	return rediscontract.ServerNodes(t, e.server(t), n, e.newAdapter)
}

func (e end) adapter(t testing.TB) contracttest.Historian {
	var client rueidis.Client
	if e.cluster != nil {
		client = e.cluster(t).Client(t)
	} else {
		client = e.server(t).Client(t)
	}
	a, err := e.newAdapter(client)
	require.NoError(t, err)
	return a.(contracttest.Historian)
}

func defaultServer(t testing.TB) *redistest.Server { return servers(t, redistest.DefaultImage) }

// TestServersContract is TestContract with real servers, from classic Pub/Sub
// on a server to sharded Pub/Sub on a cluster: the cases of histories and, after
// the flip, of slots that move.
func TestServersContract(t *testing.T) {
	from, to := end{newClassic, nil, defaultServer}, end{newSharded, cluster, nil}
	for name, flipped := range map[string]bool{"before the flip": false, "after the flip": true} {
		t.Run(name, func(t *testing.T) {
			contractOnServers(t, from, to, flipped, func(c adaptertest.Case) bool {
				return aboutHistories(c) && !fails(c)
			})
		})
	}
}

// TestServersContractWhole has what TestServersContract leaves out, and the
// whole contract on other pairs of backends.
func TestServersContractWhole(t *testing.T) {
	redistest.Long(t)
	ofServers := func() (from, to end) {
		return end{newSharded, nil, defaultServer}, end{newSharded, nil, redistest.SharedServer(redistest.Options{})}
	}
	toCluster := func() (from, to end) {
		return end{newClassic, nil, defaultServer}, end{newSharded, replicated(), nil}
	}
	onCluster := func() (from, to end) {
		c := replicated()
		return end{newClassic, c, nil}, end{newSharded, c, nil}
	}
	for name, pair := range map[string]struct {
		ends func() (from, to end)
		only func(adaptertest.Case) bool // nil: all
	}{
		"from a server to a cluster":              {toCluster, func(c adaptertest.Case) bool { return !aboutHistories(c) || fails(c) }},
		"from classic to sharded, on one cluster": {onCluster, nil},
		"from a server to another":                {ofServers, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for phase, flipped := range map[string]bool{"before the flip": false, "after the flip": true} {
				t.Run(phase, func(t *testing.T) {
					from, to := pair.ends()
					contractOnServers(t, from, to, flipped, pair.only)
				})
			}
		})
	}
}

// replicated is a cluster whose primaries the contract kills.
func replicated() func(testing.TB) *redistest.Cluster {
	return redistest.SharedCluster(redistest.Options{Primaries: 3, Replicas: 1})
}

// aboutHistories chooses cases that differ where histories are copied, and those
// in which homes move.
func aboutHistories(c adaptertest.Case) bool {
	return c.MovesHome() || strings.HasPrefix(c.Name, "history-") || c.Name == "outage-append-tells-the-truth"
}

// fails reports whether a case kills the home of a channel.
func fails(c adaptertest.Case) bool {
	return c.Name == "failed-home-hides-no-loss" || c.Name == "history-epochs-tell-a-loss"
}

// contractOnServers runs the contract, each case with a migration of its own,
// and with the faults of the backend that the hubs publish to.
func contractOnServers(t *testing.T, from, to end, flipped bool, only func(adaptertest.Case) bool) {
	adaptertest.Run(t, func(t testing.TB, n int) (ns adaptertest.Nodes) {
		olds, news := from.nodes(t, n), to.nodes(t, n)
		ns.Faults = olds.Faults
		name := rand.Text()
		if flipped {
			ns.Faults = news.Faults
			contracttest.LogFlip(t, from.adapter(t), name)
			contracttest.NoteFlip(t, to.adapter(t), name)
		}
		o := &migrate.Options{Hold: true, Logger: slog.New(slog.DiscardHandler)}
		for i := range n {
			a, err := migrate.New(name, olds.Adapters[i], news.Adapters[i], o)
			require.NoError(t, err)
			ns.Adapters = append(ns.Adapters, a)
		}
		return ns
	}, &adaptertest.Options{Timeout: 2 * time.Minute, Parallel: true, Only: only})
}

func newClassic(client rueidis.Client) (adapter.Adapter, error) {
	return redis.New(client, &redis.Options{ProbeInterval: rediscontract.ProbeInterval, ProbeTimeout: rediscontract.ProbeTimeout})
}

func newSharded(client rueidis.Client) (adapter.Adapter, error) {
	return sharded.New(client, &sharded.Options{ProbeInterval: rediscontract.ProbeInterval, ProbeTimeout: rediscontract.ProbeTimeout})
}
