package partition_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// The servers that tests share. Each is a partition.
var servers = []func(testing.TB) *redistest.Server{
	redistest.SharedServer(redistest.Options{}),
	redistest.SharedServer(redistest.Options{}),
	redistest.SharedServer(redistest.Options{}),
}

// newRedis makes an adapter for one of the servers: partitions need not be of
// one kind.
func newRedis(server int, client rueidis.Client) (adapter.Adapter, error) {
	if server%2 == 0 {
		return newClassic(client)
	}
	return newSharded(client)
}

func newClassic(client rueidis.Client) (adapter.Adapter, error) {
	return redis.New(client, &redis.Options{
		ProbeInterval: rediscontract.ProbeInterval, ProbeTimeout: rediscontract.ProbeTimeout, Logger: quiet.Logger,
	})
}

func newSharded(client rueidis.Client) (adapter.Adapter, error) {
	return sharded.New(client, &sharded.Options{
		ProbeInterval: rediscontract.ProbeInterval, ProbeTimeout: rediscontract.ProbeTimeout, Logger: quiet.Logger,
	})
}

func redisParts(t testing.TB, net *redistest.Net, numbers ...int) (parts []partition.Partition) {
	t.Helper()
	for _, i := range numbers {
		a, err := newRedis(i, servers[i](t).Client(t, net.Option()))
		require.NoError(t, err)
		parts = append(parts, partition.Partition{Name: fmt.Sprint("redis", i), Adapter: a})
	}
	return parts
}

// A partition of Redis comes and goes while members talk in a room that moves
// to it and back. They get every message once, and in order.
func TestChangeOnRedis(t *testing.T) {
	t.Parallel()
	two, three := []string{"redis0", "redis1"}, []string{"redis0", "redis1", "redis2"}
	room := roomOn(three, "redis2")
	var adapters []*partition.Adapter
	var hubs []*fanout.Hub
	var members []*fanout.Member
	for range 2 {
		a, err := partition.New(redisParts(t, new(redistest.Net), 0, 1), quiet)
		require.NoError(t, err)
		h, err := fanout.New(a, &fanout.Options{
			Logger: quiet.Logger,
			Room: func(string) fanout.RoomOptions {
				return fanout.RoomOptions{Retain: fanout.Retention{Messages: 10_000, Age: time.Hour}}
			},
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, h.Close(context.Background())) })
		adapters, hubs = append(adapters, a), append(hubs, h)
		m := member(t, h, "")
		require.NoError(t, h.Room(room).Join(t.Context(), m))
		members = append(members, m)
	}
	said := 0
	talk := func(done <-chan error) {
		for over, more := false, 100; !over || more > 0; {
			select {
			case err := <-done:
				require.NoError(t, err)
				over, done = true, nil
			default:
			}
			if over {
				more--
			}
			said++
			require.NoError(t, hubs[said%2].Room(room).Publish(t.Context(), fmt.Append(nil, said)))
		}
	}
	change := func(names []string, added bool) {
		done := make(chan error, 1)
		parts := make([][]partition.Partition, 2)
		for i := range parts {
			if added {
				parts[i] = redisParts(t, new(redistest.Net), 2)
			}
			for _, name := range names {
				if !added || name != "redis2" {
					parts[i] = append(parts[i], partition.Partition{Name: name})
				}
			}
		}
		go func() {
			first := make(chan error, 1)
			go func() { first <- adapters[0].Change(t.Context(), parts[0]) }()
			err := adapters[1].Change(t.Context(), parts[1])
			if e := <-first; e != nil {
				err = e
			}
			done <- err
		}()
		talk(done)
	}
	change(three, true)
	change(two, false)
	change(three, true)
	for _, m := range members {
		for i := 1; i <= said; i++ {
			require.Equal(t, fmt.Sprint(i), next(t, m))
		}
	}
	all, err := hubs[0].Room(room).History(t.Context(), fanout.Position{}, 0)
	require.NoError(t, err)
	require.Len(t, all, said)
	rest, err := hubs[1].Room(room).History(t.Context(), all[said/3].Position, 0)
	require.NoError(t, err)
	require.Len(t, rest, said-said/3-1)
}
