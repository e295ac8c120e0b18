package nats_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/internal/contracttest"
	"github.com/fanoutgo/fanout/internal/tcpproxy"
	"github.com/stretchr/testify/require"
)

// Independents are servers that do not know each other, each of which is a
// partition.
type independents struct {
	names   []string
	servers map[string]*fleet
}

func startIndependents(t testing.TB, names ...string) *independents {
	s := &independents{names: names, servers: make(map[string]*fleet)}
	for _, name := range names {
		s.servers[name] = startFleet(t, 1, nil)
	}
	return s
}

// partitions returns the partitions of a hub, and the proxies between it and
// the servers.
func (s *independents) partitions(t testing.TB) (parts []partition.Partition, proxies []*tcpproxy.Proxy) {
	for _, name := range s.names {
		p := newProxy(t, s.servers[name].addr(0))
		proxies = append(proxies, p)
		parts = append(parts, partition.Partition{Name: name, Adapter: newAdapter(t, p.Addr(), nats.Options{})})
	}
	return parts, proxies
}

// nodes returns adapters, which go by other sets than those of other calls.
func (s *independents) nodes(t testing.TB, n int) (nodes adaptertest.Nodes) {
	o := &partition.Options{Prefix: rand.Text(), Patience: 500 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	var hubs []*partition.Adapter
	var proxies [][]*tcpproxy.Proxy // by hub
	for range n {
		parts, between := s.partitions(t)
		a, err := partition.New(parts, o)
		require.NoError(t, err)
		proxies = append(proxies, between)
		hubs, nodes.Adapters = append(hubs, a), append(nodes.Adapters, a)
	}
	each := func(f func(*tcpproxy.Proxy)) func(context.Context, int) error {
		return func(_ context.Context, i int) error {
			for _, p := range proxies[i] {
				f(p)
			}
			return nil
		}
	}
	nodes.Faults = adaptertest.Faults{
		Break: each((*tcpproxy.Proxy).Reset),
		Cut:   each(func(p *tcpproxy.Proxy) { p.Hold(true) }),
		Heal:  each(func(p *tcpproxy.Proxy) { p.Hold(false) }),
		Move:  contracttest.Moves(hubs, s.names),
		Fail: func(_ context.Context, channel string) error {
			f := s.servers[contracttest.Home(s.names, channel)]
			f.stop(0)
			f.start(0)
			f.awaitReady()
			return nil
		},
	}
	return nodes
}

// TestContractOfPartitions is the contract on two servers that do not know each
// other. They are killed, and rooms move from one to the other.
func TestContractOfPartitions(t *testing.T) {
	long(t)
	t.Parallel()
	s := startIndependents(t, "a", "b")
	adaptertest.Run(t, s.nodes, noOneOrder)
}
