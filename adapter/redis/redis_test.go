package redis_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// The servers that the tests share. The contract moves and kills what it likes
// of its own cluster.
var (
	cluster         = redistest.SharedCluster(redistest.Options{Primaries: 3, Replicas: 1})
	contractCluster = redistest.SharedCluster(redistest.Options{Primaries: 3, Replicas: 1})
	servers         = redistest.SharedServers(redistest.Options{})
)

// server returns the server of tests that run on a single one.
func server(t testing.TB) *redistest.Server { return servers(t, redistest.DefaultImage) }

func TestMain(m *testing.M) {
	rediscontract.HubProcess(newAdapter)
	redistest.Main(m)
}

func newAdapter(client rueidis.Client) (fanout.Adapter, error) {
	return redis.New(client, &redis.Options{
		ProbeInterval: rediscontract.ProbeInterval,
		ProbeTimeout:  rediscontract.ProbeTimeout,
	})
}

func TestContractOnOneServer(t *testing.T) {
	t.Parallel()
	redistest.OnImages(t, func(t *testing.T, image string) {
		t.Parallel()
		server := func(t testing.TB) *redistest.Server { return servers(t, image) }
		rediscontract.RunServer(t, server, newAdapter)
	})
}

// Outages take long: for everyone there are two.
func TestContractOnACluster(t *testing.T) {
	t.Parallel()
	rediscontract.RunCluster(t, contractCluster, newAdapter, func(c adaptertest.Case) bool {
		outage, is := strings.CutPrefix(c.Name, "outage-")
		return redistest.All() || !is || outage == "hides-no-loss" || outage == "publish-tells-the-truth"
	})
}

func TestContractOpened(t *testing.T) {
	t.Parallel()
	rediscontract.RunOpenedServer(t, server, openAdapter)
}

func TestDocumentedACL(t *testing.T) { rediscontract.RunACL(t, "redis.go", newAdapter) }

func openAdapter(option rueidis.ClientOption) (fanout.Adapter, error) {
	return redis.Open(option, &redis.Options{
		ProbeInterval: rediscontract.ProbeInterval,
		ProbeTimeout:  rediscontract.ProbeTimeout,
	})
}

// Classic Pub/Sub sends every message to every node of a cluster. Package
// sharded avoids that.
func TestPublishingGoesToEveryNode(t *testing.T) {
	t.Parallel()
	for _, primaries := range []int{3, 6} {
		t.Run(fmt.Sprint(primaries, " primaries"), func(t *testing.T) {
			c := redistest.NewCluster(t, redistest.Options{Primaries: primaries})
			// A hub would publish hellos of its own, and probes are published,
			// too.
			a, err := redis.New(c.Client(t), &redis.Options{ProbeInterval: -1})
			require.NoError(t, err)
			defer a.Close(context.Background())
			require.NoError(t, a.Attach(nobody{}))
			require.NoError(t, a.Subscribe(t.Context(), "room0"))
			before, err := c.BusSent(t.Context())
			require.NoError(t, err)
			const messages = 100
			for n := range messages {
				_, err := a.Publish(t.Context(), fmt.Sprint("room", n), []byte("hello"))
				require.NoError(t, err)
			}
			after, err := c.BusSent(t.Context())
			require.NoError(t, err)
			require.Equal(t, redistest.BusSent{Publish: int64(messages * (primaries - 1))}, after.Sub(before))
		})
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	_, err := redis.New(nil, nil)
	require.ErrorContains(t, err, "the client is nil")
	_, err = redis.New(server(t).Client(t), &redis.Options{ProbeTimeout: -1})
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
}

func TestNames(t *testing.T) {
	rediscontract.RunNames(t, redistest.Options{}, newAdapter)
}
