package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
)

// readReplicas makes an adapter that reads rooms from replicas.
func readReplicas(client rueidis.Client) (fanout.Adapter, error) {
	return sharded.New(client, &sharded.Options{
		ReadFrom:      sharded.Replicas,
		ProbeInterval: rediscontract.ProbeInterval,
		ProbeTimeout:  rediscontract.ProbeTimeout,
	})
}

func TestContractOnReplicas(t *testing.T) {
	redistest.OnImages(t, func(t *testing.T, image string) {
		cluster := func(t testing.TB) *redistest.Cluster { return clusters(t, image) }
		rediscontract.RunCluster(t, cluster, readReplicas)
	})
}
