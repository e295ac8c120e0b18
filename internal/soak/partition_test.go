package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/soak/check"
	"github.com/fanoutgo/fanout/internal/soak/world"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// independent are servers that do not know each other, each of which has its
// share of the rooms.
type independent struct {
	servers []*redistest.Server
	nets    []*redistest.Net // of the hubs
}

// Open implements world.Servers.
func (s *independent) Open(_ int, log *slog.Logger) (_ fanout.Adapter, disconnect func(), err error) {
	net := new(redistest.Net)
	s.nets = append(s.nets, net)
	var parts []partition.Partition
	var clients []rueidis.Client
	disconnect = func() {
		for _, c := range clients {
			c.Close()
		}
	}
	for i, server := range s.servers {
		o := server.ClientOption()
		net.Option()(&o)
		client, err := rueidis.NewClient(o)
		if err != nil {
			disconnect()
			return nil, nil, err
		}
		clients = append(clients, client)
		a, err := sharded.New(client, &sharded.Options{ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 2 * time.Second, Logger: log})
		if err != nil {
			disconnect()
			return nil, nil, err
		}
		parts = append(parts, partition.Partition{Name: fmt.Sprint("p", i), Adapter: a})
	}
	a, err := partition.New(parts, &partition.Options{Logger: log})
	return a, disconnect, err
}

// Settle implements world.Servers. A server that was started again answers.
func (s *independent) Settle(context.Context) error { return nil }

// Roles implements world.Servers.
func (s *independent) Roles() string { return "" }

// Heal implements world.Servers.
func (s *independent) Heal() {
	for _, net := range s.nets {
		net.HealAll()
	}
}

// faults returns what happens to a server, and to a hub. Servers keep
// everything in memory, so one that is killed loses it.
func (s *independent) faults() []world.Fault {
	lasts := func(name string, lossy bool, begin, end func(*redistest.Node, context.Context) error) world.Fault {
		return world.Fault{Name: name, Lossy: lossy, Happen: func(ctx context.Context, w *world.World) error {
			node := s.servers[w.Random.IntN(len(s.servers))].Node
			if err := begin(node, ctx); err != nil {
				return err
			}
			select {
			case <-time.After(3 * time.Second):
			case <-ctx.Done():
			}
			return end(node, context.WithoutCancel(ctx))
		}}
	}
	return []world.Fault{
		lasts("a server is killed, and back", true, (*redistest.Node).Kill, (*redistest.Node).Start),
		lasts("a server is paused", false, (*redistest.Node).Pause, (*redistest.Node).Unpause),
		lasts("a server is cut off", false, (*redistest.Node).Cut, (*redistest.Node).Heal),
		{Name: "a hub is cut off", Happen: func(ctx context.Context, w *world.World) error {
			i := w.Random.IntN(len(w.Hubs))
			before := w.Hubs[i].Stats().Interruptions
			s.nets[i].CutAll()
			defer s.nets[i].HealAll()
			return w.Await(ctx, "the hub notices", func() string {
				if w.Hubs[i].Stats().Interruptions > before {
					return ""
				}
				return "it has noticed nothing"
			})
		}},
	}
}

// TestGuaranteesHoldOnPartitions is the soak on three servers that do not know
// each other, with package partition.
func TestGuaranteesHoldOnPartitions(t *testing.T) {
	redistest.Long(t)
	s := new(independent)
	for range 3 {
		s.servers = append(s.servers, redistest.NewServer(t, redistest.Options{}))
	}
	cfg := world.Config{
		Seed: uint64(time.Now().UnixNano()), Rooms: 16, Movers: 6, Pace: 40 * time.Millisecond,
		Log: new(world.Journal), Faults: s.faults(), Time: 30 * time.Second,
	}
	report, err := world.Run(t.Context(), cfg, s)
	sum := check.Figures{Fault: "all"}
	for _, f := range report.Figures {
		t.Logf("%+v", f)
		sum.Add(f)
	}
	t.Logf("seed %d: %+v", cfg.Seed, sum)
	if err != nil || len(report.Failures) > 0 {
		cfg.Log.Print(os.Stderr)
	}
	redistest.Must(t, err)
	require.Empty(t, report.Failures)
	require.Zero(t, sum.Silent)
	require.Positive(t, sum.Received)
	require.Positive(t, sum.Lists)
}
