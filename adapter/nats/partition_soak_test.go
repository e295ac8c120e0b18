package nats_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/internal/contracttest"
	soak "github.com/fanoutgo/fanout/internal/soak/world"
	"github.com/fanoutgo/fanout/internal/tcpproxy"
)

// Soaked independents have a world on them.
type soakedIndependents struct {
	*independents
	t       *testing.T
	hubs    []*partition.Adapter
	proxies [][]*tcpproxy.Proxy // by hub
}

var _ soak.Servers = (*soakedIndependents)(nil)

// Open implements soak.Servers.
func (s *soakedIndependents) Open(_ int, log *slog.Logger) (fanout.Adapter, func(), error) {
	parts, proxies := s.partitions(s.t)
	a, err := partition.New(parts, &partition.Options{Patience: 2 * time.Second, Logger: log})
	s.hubs, s.proxies = append(s.hubs, a), append(s.proxies, proxies)
	return a, func() {}, err
}

// Settle implements soak.Servers.
func (s *soakedIndependents) Settle(context.Context) error {
	for _, f := range s.servers {
		f.awaitReady()
	}
	return nil
}

// Roles implements soak.Servers.
func (s *soakedIndependents) Roles() string { return "" }

// Heal implements soak.Servers.
func (s *soakedIndependents) Heal() {
	for i := range s.proxies {
		s.hold(i, false)
	}
}

// hold makes a hub's connections silent, or has them go on.
func (s *soakedIndependents) hold(hub int, held bool) {
	for _, p := range s.proxies[hub] {
		p.Hold(held)
	}
}

// faults returns what happens to a server, to a hub, and to the set of
// partitions.
func (s *soakedIndependents) faults() []soak.Fault {
	return []soak.Fault{
		// One server with its disk is not sure that it has everything.
		{Name: "a server is killed, and back", Doubtful: true, Happen: func(ctx context.Context, w *soak.World) error {
			f := s.servers[s.names[w.Random.IntN(len(s.names))]]
			f.stop(0)
			last(ctx, 2*time.Second)
			f.start(0)
			return nil
		}},
		{Name: "a partition leaves, and comes back", Moves: true, Happen: func(ctx context.Context, w *soak.World) error {
			move := contracttest.Moves(s.hubs, s.names)
			channel := "fanout:r:{" + w.Rooms[w.Random.IntN(len(w.Rooms))].Name + "}"
			if err := move(ctx, channel); err != nil {
				return err
			}
			if err := w.Hearing(ctx); err != nil {
				return err
			}
			return move(ctx, channel)
		}},
		{Name: "a hub is cut off", Happen: func(ctx context.Context, w *soak.World) error {
			i := w.Random.IntN(len(s.hubs))
			before := w.Hubs[i].Stats().Interruptions
			s.hold(i, true)
			defer s.hold(i, false)
			return w.Await(ctx, "the hub notices", func() string {
				if w.Hubs[i].Stats().Interruptions > before {
					return ""
				}
				return "it has noticed nothing"
			})
		}},
	}
}

// TestSoakOfPartitions is the soak on servers that do not know each other, with
// package partition.
func TestSoakOfPartitions(t *testing.T) {
	long(t)
	s := &soakedIndependents{independents: startIndependents(t, "a", "b"), t: t}
	runSoak(t, s, s.faults(), 0)
}
