package redis_test

import (
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// The servers that the tests share.
var (
	cluster  = redistest.SharedCluster(redistest.Options{Primaries: 3, Replicas: 1})
	server   = redistest.SharedServer(redistest.Options{})
	server70 = redistest.SharedServer(redistest.Options{Image: redistest.Redis70})
	valkey   = redistest.SharedServer(redistest.Options{Image: redistest.Valkey81})
)

func TestMain(m *testing.M) { redistest.Main(m) }

func newAdapter(client rueidis.Client) (fanout.Adapter, error) {
	return redis.New(client, &redis.Options{
		ProbeInterval: rediscontract.ProbeInterval,
		ProbeTimeout:  rediscontract.ProbeTimeout,
	})
}

func TestContractOnOneServer(t *testing.T) { rediscontract.RunServer(t, server, newAdapter) }
func TestContractOnRedis70(t *testing.T)   { rediscontract.RunServer(t, server70, newAdapter) }
func TestContractOnValkey81(t *testing.T)  { rediscontract.RunServer(t, valkey, newAdapter) }
func TestContractOnACluster(t *testing.T)  { rediscontract.RunCluster(t, cluster, newAdapter) }

func TestBadOptionsAreRefused(t *testing.T) {
	_, err := redis.New(nil, nil)
	require.ErrorContains(t, err, "the client is nil")
	_, err = redis.New(server(t).Client(t), &redis.Options{ProbeTimeout: -1})
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
}
