package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
)

// The servers that the tests share.
var (
	cluster   = redistest.SharedCluster(redistest.Options{Primaries: 3, Replicas: 1})
	cluster70 = redistest.SharedCluster(redistest.Options{Image: redistest.Redis70, Primaries: 3, Replicas: 1})
	valkey    = redistest.SharedCluster(redistest.Options{Image: redistest.Valkey81, Primaries: 3, Replicas: 1})
	server    = redistest.SharedServer(redistest.Options{})
)

func TestMain(m *testing.M) { redistest.Main(m) }

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
