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
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// TestServersContract is TestContract with real servers, from classic Pub/Sub
// on a server to sharded Pub/Sub on a cluster: the cases of histories and,
// after the flip, of slots that move.
func TestServersContract(t *testing.T) {
	for name, flipped := range map[string]bool{"before the flip": false, "after the flip": true} {
		t.Run(name, func(t *testing.T) {
			contractOnServers(t, flipped, func(c adaptertest.Case) bool {
				if c.MovesHome() {
					return flipped && !fails(c)
				}
				return strings.HasPrefix(c.Name, "history-") || c.Name == "outage-append-tells-the-truth"
			})
		})
	}
}

// TestServersContractOfFailovers has the cases in which a primary dies.
func TestServersContractOfFailovers(t *testing.T) {
	redistest.Long(t)
	contractOnServers(t, true, fails)
}

// fails reports whether a case kills the home of a channel.
func fails(c adaptertest.Case) bool {
	return c.Name == "failed-home-hides-no-loss" || c.Name == "history-epochs-tell-a-loss"
}

func contractOnServers(t *testing.T, flipped bool, only func(adaptertest.Case) bool) {
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
		return serverNodes(t, n, flipped)
	}, &adaptertest.Options{Timeout: 2 * time.Minute, Parallel: true, Only: only})
}

// serverNodes returns adapters of a migration of its own, and the faults of the
// backend that they publish to.
func serverNodes(t testing.TB, n int, flipped bool) (ns adaptertest.Nodes) {
	from := rediscontract.ServerNodes(t, servers(t, redistest.DefaultImage), n, newClassic)
	to := rediscontract.ClusterNodes(t, cluster(t), n, newSharded)
	ns.Faults = from.Faults
	name := rand.Text()
	if flipped {
		ns.Faults = to.Faults
		a, err := newSharded(cluster(t).Client(t))
		require.NoError(t, err)
		noteFlip(t, a.(*sharded.Adapter), name)
	}
	o := &migrate.Options{Hold: true, Logger: slog.New(slog.DiscardHandler)}
	for i := range n {
		a, err := migrate.New(name, from.Adapters[i], to.Adapters[i], o)
		require.NoError(t, err)
		ns.Adapters = append(ns.Adapters, a)
	}
	return ns
}

func newClassic(client rueidis.Client) (adapter.Adapter, error) {
	return redis.New(client, &redis.Options{ProbeInterval: rediscontract.ProbeInterval, ProbeTimeout: rediscontract.ProbeTimeout})
}

func newSharded(client rueidis.Client) (adapter.Adapter, error) {
	return sharded.New(client, &sharded.Options{ProbeInterval: rediscontract.ProbeInterval, ProbeTimeout: rediscontract.ProbeTimeout})
}
