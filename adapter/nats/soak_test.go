package nats_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/fanoutgo/fanout/internal/soak/check"
	soak "github.com/fanoutgo/fanout/internal/soak/world"
	"github.com/fanoutgo/fanout/internal/tcpproxy"
	client "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// A soaked fleet is three servers with a world on them: hub i reaches server i
// through a proxy.
type soaked struct {
	*fleet
	proxies []*tcpproxy.Proxy
}

// Open implements soak.Servers.
func (s *soaked) Open(hub int, log *slog.Logger) (fanout.Adapter, func(), error) {
	a, err := nats.New("nats://"+s.proxies[hub].Addr(), &nats.Options{
		PingInterval: 500 * time.Millisecond, Logger: log,
		Connect: []client.Option{client.IgnoreDiscoveredServers(), client.Timeout(time.Second)},
	})
	return a, func() {}, err
}

// Settle implements soak.Servers.
func (s *soaked) Settle(context.Context) error {
	s.awaitReady()
	return nil
}

// Roles implements soak.Servers. Leaders of streams may change at any time,
// and nothing is lost with them.
func (s *soaked) Roles() string { return "" }

// Heal implements soak.Servers.
func (s *soaked) Heal() {
	for i, p := range s.proxies {
		s.cut(i, false)
		p.Hold(false)
	}
}

// last for a while, which is how long the fault itself is.
func last(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// faults returns what happens to a server, and after that what happens to a
// hub.
func (s *soaked) faults() []soak.Fault {
	at := func(name string, happen func(ctx context.Context, w *soak.World, i int) error) soak.Fault {
		return soak.Fault{Name: name, Happen: func(ctx context.Context, w *soak.World) error {
			return happen(ctx, w, w.Random.IntN(len(s.proxies)))
		}}
	}
	return []soak.Fault{
		at("a server is killed, and back", func(ctx context.Context, _ *soak.World, i int) error {
			s.stop(i)
			last(ctx, 2*time.Second)
			s.start(i)
			return nil
		}),
		at("a server is paused", func(ctx context.Context, _ *soak.World, i int) error {
			s.cut(i, true)
			s.proxies[i].Hold(true)
			last(ctx, 4*time.Second)
			s.cut(i, false)
			s.proxies[i].Hold(false)
			return nil
		}),
		at("a server is cut off from the others", func(ctx context.Context, _ *soak.World, i int) error {
			s.cut(i, true)
			last(ctx, 5*time.Second)
			s.cut(i, false)
			return nil
		}),
		at("a hub's connection is reset", func(_ context.Context, _ *soak.World, i int) error {
			s.proxies[i].Reset()
			return nil
		}),
		at("a hub is cut off", func(ctx context.Context, w *soak.World, i int) error {
			before := w.Hubs[i].Stats().Interruptions
			s.proxies[i].Hold(true)
			defer s.proxies[i].Hold(false)
			return w.Await(ctx, "the hub notices", func() string {
				if w.Hubs[i].Stats().Interruptions > before {
					return ""
				}
				return "it has noticed nothing"
			})
		}),
	}
}

// TestSoak is the soak of package internal/soak on NATS: clients come and go,
// resume and read histories while a server of a cluster of three is killed,
// paused and cut off. Hubs have faults, too, and faults go on at random for
// some time.
func TestSoak(t *testing.T) {
	long(t)
	t.Parallel()
	s := &soaked{fleet: startFleet(t, 3, nil)}
	for i := range soak.Hubs {
		s.proxies = append(s.proxies, newProxy(t, s.addr(i)))
	}
	runSoak(t, s, s.faults(), 45*time.Second)
}

// runSoak has the faults happen to a world, each at least once, and at random
// for as long as d.
func runSoak(t *testing.T, s soak.Servers, faults []soak.Fault, d time.Duration) {
	cfg := soak.Config{
		Seed: uint64(time.Now().UnixNano()), Rooms: 12, Movers: 6, Pace: 40 * time.Millisecond,
		Log: new(soak.Journal), Faults: faults, Time: d, Unordered: true,
	}
	report, err := soak.Run(t.Context(), cfg, s)
	sum := check.Figures{Fault: "all"}
	for _, f := range report.Figures {
		t.Logf("%+v", f)
		sum.Add(f)
	}
	t.Logf("seed %d: %+v", cfg.Seed, sum)
	if err != nil || len(report.Failures) > 0 {
		cfg.Log.Print(os.Stderr)
	}
	require.NoError(t, err)
	require.Empty(t, report.Failures)
	require.Zero(t, sum.Silent)
	require.Positive(t, sum.Received)
	require.Positive(t, sum.Lists)
}

var _ soak.Servers = (*soaked)(nil)
