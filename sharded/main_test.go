package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
)

// The servers that the tests share. Only one test at a time may use a cluster:
// those of the contract move and kill what they like. The long suites run
// beside each other, each on clusters of its own.
var (
	clusters         = redistest.SharedClusters(withReplicas)
	contractClusters = redistest.SharedClusters(withReplicas)
	faultClusters    = redistest.SharedClusters(withReplicas)
	openSlotClusters = redistest.SharedClusters(withReplicas)
	server           = redistest.SharedServer(redistest.Options{})

	withReplicas = redistest.Options{Primaries: 3, Replicas: 1}
)

// cluster returns the cluster of tests that run on a single one.
func cluster(t testing.TB) *redistest.Cluster { return clusters(t, redistest.DefaultImage) }

// onClusters runs a test on a cluster of each kind.
func onClusters(t *testing.T, f func(t *testing.T, c *redistest.Cluster)) {
	redistest.OnImages(t, func(t *testing.T, image string) { f(t, clusters(t, image)) })
}

// onServers runs a test on a single server of each kind.
func onServers(t *testing.T, args []string, f func(t *testing.T, s *redistest.Server)) {
	redistest.OnImages(t, func(t *testing.T, image string) {
		f(t, redistest.NewServer(t, redistest.Options{Image: image, Args: args}))
	})
}

func TestMain(m *testing.M) {
	rediscontract.HubProcess(newAdapter)
	redistest.Main(m)
}

func newAdapter(client rueidis.Client) (fanout.Adapter, error) {
	return sharded.New(client, &sharded.Options{
		ProbeInterval: rediscontract.ProbeInterval,
		ProbeTimeout:  rediscontract.ProbeTimeout,
	})
}

func openAdapter(option rueidis.ClientOption) (fanout.Adapter, error) {
	return sharded.Open(option, &sharded.Options{
		ProbeInterval: rediscontract.ProbeInterval,
		ProbeTimeout:  rediscontract.ProbeTimeout,
	})
}
