// Package rediscontract runs the adapter contract against real Redis servers,
// with the faults that they can have, for the adapters that share
// internal/redispubsub.
package rediscontract

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
)

// ProbeInterval and ProbeTimeout are short enough to notice a dead link soon,
// and long enough not to mistake a busy machine for one.
const (
	ProbeInterval = 200 * time.Millisecond
	ProbeTimeout  = 2 * time.Second
)

// NewAdapter makes the adapter under test.
type NewAdapter func(rueidis.Client) (adapter.Adapter, error)

// OpenAdapter makes the adapter under test, with a client of its own.
type OpenAdapter func(rueidis.ClientOption) (adapter.Adapter, error)

// servers are a redistest.Cluster or a redistest.Server.
type servers interface {
	Client(testing.TB, ...func(*rueidis.ClientOption)) rueidis.Client
	ClientOption() rueidis.ClientOption
}

// RunServer runs the contract on a single server.
func RunServer(t *testing.T, server func(testing.TB) *redistest.Server, newAdapter NewAdapter) {
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
		return ServerNodes(t, server(t), n, newAdapter)
	}, &adaptertest.Options{Parallel: true})
}

// RunOpenedServer is RunServer for adapters with clients of their own. For
// everyone it leaves out histories and outages, which have the same clients.
func RunOpenedServer(t *testing.T, server func(testing.TB) *redistest.Server, open OpenAdapter) {
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
		s := server(t)
		return adapters(t, n, func(net *redistest.Net) (adapter.Adapter, error) {
			o := s.ClientOption()
			net.Option()(&o)
			return open(o)
		})
	}, &adaptertest.Options{Parallel: true, Only: func(c adaptertest.Case) bool {
		return redistest.All() || !c.NeedsHistory() && !strings.HasPrefix(c.Name, "outage-")
	}})
}

// RunCluster runs the contract on a cluster with replicas. If only is not nil
// it chooses the cases.
func RunCluster(t *testing.T, cluster func(testing.TB) *redistest.Cluster, newAdapter NewAdapter, only func(adaptertest.Case) bool) {
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
		return ClusterNodes(t, cluster(t), n, newAdapter)
	}, &adaptertest.Options{Timeout: 2 * time.Minute, Parallel: true, Only: only})
}

// ServerNodes returns adapters of a single server, which the contract may cut
// off.
func ServerNodes(t testing.TB, s *redistest.Server, n int, newAdapter NewAdapter) adaptertest.Nodes {
	return nodes(t, s, n, newAdapter)
}

// ClusterNodes returns adapters of a cluster with replicas, with all faults.
func ClusterNodes(t testing.TB, c *redistest.Cluster, n int, newAdapter NewAdapter) adaptertest.Nodes {
	ns := nodes(t, c, n, newAdapter)
	ns.Faults.Move = func(ctx context.Context, channel string) error { return move(ctx, c, channel) }
	ns.Faults.Fail = func(ctx context.Context, channel string) error { return fail(ctx, c, channel) }
	return ns
}

// nodes makes adapters, each with a client and a network of its own.
func nodes(t testing.TB, s servers, n int, newAdapter NewAdapter) adaptertest.Nodes {
	return adapters(t, n, func(net *redistest.Net) (adapter.Adapter, error) {
		return newAdapter(s.Client(t, net.Option()))
	})
}

// adapters makes adapters, each with a network of its own.
func adapters(t testing.TB, n int, newAdapter func(*redistest.Net) (adapter.Adapter, error)) adaptertest.Nodes {
	var ns adaptertest.Nodes
	nets := make([]*redistest.Net, n)
	for i := range nets {
		nets[i] = new(redistest.Net)
		t.Cleanup(nets[i].HealAll)
		a, err := newAdapter(nets[i])
		if err != nil {
			t.Fatal(err)
		}
		ns.Adapters = append(ns.Adapters, a)
	}
	ns.Faults.Break = func(_ context.Context, i int) error {
		nets[i].ResetAll()
		nets[i].HealAll()
		return nil
	}
	ns.Faults.Cut = func(_ context.Context, i int) error { nets[i].CutAll(); return nil }
	ns.Faults.Heal = func(_ context.Context, i int) error { nets[i].HealAll(); return nil }
	return ns
}

// move gives the channel's slot to another primary: if possible to one that
// never was a replica, since other primaries cannot be sure of a history that
// comes to them within a second of their first call.
func move(ctx context.Context, c *redistest.Cluster, channel string) error {
	slot := redistest.Slot(channel)
	from := c.Owner(slot)
	var to *redistest.Node
	for _, n := range c.Primaries() {
		if n == from {
			continue
		}
		info, err := n.Do(ctx, "INFO", "replication").ToString()
		if err != nil {
			return err
		}
		if never := strings.Contains(info, "master_replid2:0000000000"); never || to == nil {
			to = n
		}
	}
	if to == nil {
		return errors.New("there is no other primary")
	}
	return c.MigrateSlot(ctx, from, to, slot)
}

// fail kills the primary of the channel's slot and waits for its replica.
func fail(ctx context.Context, c *redistest.Cluster, channel string) error {
	if err := c.Owner(redistest.Slot(channel)).Kill(ctx); err != nil {
		return err
	}
	return c.WaitHealthy(ctx)
}
