package migrate_test

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/internal/deploytest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { redistest.Main(m) }

var (
	cluster = redistest.SharedCluster(redistest.Options{Primaries: 3, Replicas: 1})
	servers = redistest.SharedServers(redistest.Options{})
)

// TestServersDeploy is TestDeploy with real servers.
func TestServersDeploy(t *testing.T) {
	c := cluster(t)
	onCluster := func() adapter.Adapter {
		a, err := sharded.New(c.Client(t), nil)
		require.NoError(t, err)
		return a
	}
	t.Run("classic to sharded, on one cluster", func(t *testing.T) {
		t.Parallel()
		deployOnServers(t, "one-cluster", func() adapter.Adapter {
			a, err := redis.New(c.Client(t), nil)
			require.NoError(t, err)
			return a
		}, onCluster)
	})
	t.Run("a server to a cluster", func(t *testing.T) {
		t.Parallel()
		s := servers(t, redistest.DefaultImage)
		deployOnServers(t, "to-cluster", func() adapter.Adapter {
			a, err := redis.New(s.Client(t), nil)
			require.NoError(t, err)
			return a
		}, onCluster)
	})
}

func deployOnServers(t *testing.T, prefix string, from, to func() adapter.Adapter) {
	d := &deploytest.Deploy{
		T: t, From: from, To: to,
		Options: migrate.Options{Prefix: prefix, Settle: 2 * time.Second, Logger: slog.New(slog.DiscardHandler)},
		Pause:   func() time.Duration { return time.Duration(1+rand.N(5)) * time.Millisecond },
	}
	began := time.Now()
	d.Run()
	t.Logf("the deploy took %v", time.Since(began).Round(10*time.Millisecond))
}
