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
// on a server to sharded Pub/Sub on a cluster: the cases of histories and,
// after the flip, of slots that move.
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

// TestServersContractWhole is the whole contract, before the flip from a server
// to another and after it on one cluster, and on other pairs of backends what
// may differ there.
func TestServersContractWhole(t *testing.T) {
	redistest.Long(t)
	second := redistest.SharedServer(redistest.Options{})
	before, after, other := replicated(), replicated(), replicated()
	for name, pair := range map[string]struct {
		from, to end
		flipped  bool
		only     func(adaptertest.Case) bool // nil: all
	}{
		"from a server to a cluster, after the flip": {end{newClassic, nil, defaultServer}, end{newSharded, other, nil}, true, fails},
		"from a server to another, before the flip":  {end{newSharded, nil, defaultServer}, end{newSharded, nil, second}, false, nil},
		"from a server to another, after the flip":   {end{newSharded, nil, defaultServer}, end{newSharded, nil, second}, true, aboutHistories},
		"on one cluster, before the flip":            {end{newClassic, before, nil}, end{newSharded, before, nil}, false, movesHistories},
		"on one cluster, after the flip":             {end{newClassic, after, nil}, end{newSharded, after, nil}, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			contractOnServers(t, pair.from, pair.to, pair.flipped, pair.only)
		})
	}
}

// replicated is a cluster whose primaries the contract kills.
func replicated() func(testing.TB) *redistest.Cluster {
	return redistest.SharedCluster(redistest.Options{Primaries: 3, Replicas: 1})
}

// aboutHistories chooses cases that differ where histories are copied, and
// those in which homes move.
func aboutHistories(c adaptertest.Case) bool {
	return c.MovesHome() || strings.HasPrefix(c.Name, "history-") || c.Name == "outage-append-tells-the-truth"
}

// movesHistories chooses cases in which the home of a history moves or dies.
func movesHistories(c adaptertest.Case) bool {
	return c.MovesHome() && !strings.HasSuffix(c.Name, "-hides-no-loss")
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
