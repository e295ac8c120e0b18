package partition_test

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/internal/contracttest"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// The partitions of TestContractOnServers. The server writes each command to
// its disk, so it has all of a history when it was killed and is back.
var (
	contractCluster = redistest.SharedCluster(redistest.Options{Primaries: 3, Replicas: 1})
	contractServer  = redistest.SharedServer(redistest.Options{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
	contractNames   = []string{"cluster", "server"}
)

// TestContractOnServers is the contract on a cluster, with sharded Pub/Sub, and
// a server, with classic Pub/Sub. Primaries of the cluster die, the server dies
// and comes back, and rooms move between the two.
func TestContractOnServers(t *testing.T) {
	redistest.Long(t)
	t.Parallel()
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
		c, s := contractCluster(t), contractServer(t)
		onCluster, onServer := rediscontract.ClusterNodes(t, c, n, newSharded), rediscontract.ServerNodes(t, s, n, newClassic)
		o := &partition.Options{Prefix: rand.Text(), Patience: quiet.Patience, Logger: quiet.Logger}
		var nodes adaptertest.Nodes
		var hubs []*partition.Adapter
		for i := range n {
			a, err := partition.New([]partition.Partition{
				{Name: "cluster", Adapter: onCluster.Adapters[i]}, {Name: "server", Adapter: onServer.Adapters[i]},
			}, o)
			require.NoError(t, err)
			nodes.Adapters, hubs = append(nodes.Adapters, a), append(hubs, a)
		}
		nodes.Faults = onBoth(onCluster.Faults, onServer.Faults)
		nodes.Faults.Fail = func(ctx context.Context, channel string) error {
			if contracttest.Home(contractNames, channel) == "cluster" {
				return onCluster.Faults.Fail(ctx, channel)
			}
			return restart(ctx, s.Node)
		}
		moves := contracttest.Moves(hubs, contractNames)
		nodes.Faults.Move = func(ctx context.Context, channel string) error {
			if err := onCluster.Faults.Move(ctx, channel); err != nil {
				return err
			}
			return moves(ctx, channel)
		}
		return nodes
	}, &adaptertest.Options{Timeout: 2 * time.Minute, Parallel: true})
}

// onBoth returns the faults of links that befall those to two partitions.
func onBoth(f, g adaptertest.Faults) adaptertest.Faults {
	both := func(f, g func(context.Context, int) error) func(context.Context, int) error {
		return func(ctx context.Context, i int) error { return errors.Join(f(ctx, i), g(ctx, i)) }
	}
	return adaptertest.Faults{Break: both(f.Break, g.Break), Cut: both(f.Cut, g.Cut), Heal: both(f.Heal, g.Heal)}
}

// restart kills a server, and waits until it is back.
func restart(ctx context.Context, n *redistest.Node) error {
	if err := n.Kill(ctx); err != nil {
		return err
	}
	return n.Start(ctx)
}
