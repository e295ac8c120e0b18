package nats_test

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"log/slog"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/fanoutgo/fanout/internal/tcpproxy"
	client "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain has two parallel tests run for each processor, or fewer if the
// command line says so. Most of the time they wait, but each has servers in
// this process, and with more of them the servers' elections take too long.
func TestMain(m *testing.M) {
	flag.Parse()
	const name = "test.parallel"
	most := 2 * runtime.GOMAXPROCS(0)
	flag.Visit(func(f *flag.Flag) {
		if n, err := strconv.Atoi(f.Value.String()); f.Name == name && err == nil {
			most = min(n, most)
		}
	})
	if err := flag.Set(name, strconv.Itoa(most)); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// newAdapter makes an adapter that reaches a server through a proxy.
func newAdapter(t testing.TB, addr string, o nats.Options) *nats.Adapter {
	o.PingInterval = 500 * time.Millisecond
	o.Connect = append(o.Connect, client.IgnoreDiscoveredServers(), client.Timeout(time.Second))
	o.Logger = slog.New(slog.DiscardHandler)
	a, err := nats.New("nats://"+addr, &o)
	require.NoError(t, err)
	return a
}

// nodes returns adapters, each at one of the servers, and what can be done to
// them.
func nodes(t testing.TB, f *fleet, n int) (nodes adaptertest.Nodes) {
	var proxies []*tcpproxy.Proxy
	for i := range n {
		p := newProxy(t, f.addr(i%len(f.options)))
		proxies = append(proxies, p)
		nodes.Adapters = append(nodes.Adapters, newAdapter(t, p.Addr(), nats.Options{}))
	}
	nodes.Faults = adaptertest.Faults{
		Break: func(_ context.Context, i int) error { proxies[i].Reset(); return nil },
		Cut:   func(_ context.Context, i int) error { proxies[i].Hold(true); return nil },
		Heal:  func(_ context.Context, i int) error { proxies[i].Hold(false); return nil },
		Fail: func(_ context.Context, channel string) error {
			i := 0
			if len(f.options) > 1 {
				i = max(0, f.leader(streamOf(channel)))
			}
			f.stop(i)
			f.start(i)
			f.awaitReady()
			return nil
		},
	}
	if len(f.options) > 1 {
		nodes.Faults.Move = func(ctx context.Context, channel string) error { return f.stepDown(ctx, streamOf(channel)) }
	}
	return nodes
}

// streamOf is the name of the stream that keeps a channel's history.
func streamOf(channel string) string {
	h := fnv.New64a()
	h.Write([]byte(channel))
	return fmt.Sprint("FANOUT_", h.Sum64()%64)
}

// NATS has no order among the frames of several publishers: a server delivers
// what two connections send to two others at the same time in any order to
// each. (Frames that are kept have one: the stream's.)
var noOneOrder = &adaptertest.Options{Parallel: true, Waive: []string{"one-order"}}

func TestContractOnOneServer(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, nil)
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes { return nodes(t, f, n) }, noOneOrder)
}

func TestContractOnACluster(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3, nil)
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes { return nodes(t, f, n) }, noOneOrder)
}
