package redis_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
)

func TestAcrossHubs(t *testing.T) {
	t.Parallel()
	t.Run("on a server", func(t *testing.T) {
		t.Parallel()
		rediscontract.RunAcross(t, servers(t, redistest.DefaultImage).Client, newAdapter, nil)
	})
	t.Run("on a cluster, whose nodes do not count", func(t *testing.T) {
		t.Parallel()
		rediscontract.RunAcross(t, cluster(t).Client, newAdapter, nil)
	})
}

// It runs alone: what is timed is a few processes on a machine that is free.
func TestHubsOfProcesses(t *testing.T) {
	t.Run("on a server", func(t *testing.T) {
		rediscontract.RunProcesses(t, redistest.Rounds(3, 20), server(t), newAdapter, rediscontract.GoneWithin)
	})
	t.Run("on a cluster, whose nodes do not count", func(t *testing.T) {
		redistest.Long(t)
		rediscontract.RunProcesses(t, 5, cluster(t), newAdapter, rediscontract.GoneWithinUncounted)
	})
}
