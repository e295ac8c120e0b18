package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/tcpproxy"
	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// A fleet is embedded servers, one or a cluster.
type fleet struct {
	t       testing.TB
	options []*server.Options
	mu      sync.Mutex
	servers []*server.Server
	routes  map[[2]int]*tcpproxy.Proxy // from one server to another
}

const maxPayload = 8 << 20

// startFleet starts n servers with JetStream, which form a cluster if n is more
// than 1. The connections between them go through proxies.
func startFleet(t testing.TB, n int, edit func(*server.Options)) *fleet {
	for range 5 {
		f := newFleet(t, n, edit)
		for i := range n {
			f.start(i)
		}
		if f.within(15*time.Second, f.ready) {
			t.Cleanup(f.stopAll)
			return f
		}
		f.stopAll() // somebody has taken a port meanwhile
	}
	require.Fail(t, "the servers don't come to know each other")
	return nil
}

func newFleet(t testing.TB, n int, edit func(*server.Options)) *fleet {
	f := &fleet{t: t, servers: make([]*server.Server, n), routes: make(map[[2]int]*tcpproxy.Proxy)}
	ports := freePorts(t, 2*n)
	for i := range n {
		o := &server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: ports[i],
			JetStream: true, StoreDir: t.TempDir(), MaxPayload: maxPayload,
			NoLog: true, NoSigs: true, WriteDeadline: 2 * time.Second,
		}
		if n > 1 {
			// No routes but through proxies: what servers tell each other leads
			// nowhere.
			o.Cluster = server.ClusterOpts{Name: "fleet", Host: "127.0.0.1", Port: ports[n+i], NoAdvertise: true, PoolSize: -1, Advertise: "127.0.0.1:1"}
			o.PingInterval, o.MaxPingsOut = time.Second, 2
			for j := range n {
				if i == j {
					continue
				}
				p := newProxy(t, fmt.Sprint("127.0.0.1:", ports[n+j]))
				f.routes[[2]int{i, j}] = p
				o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: p.Addr()})
			}
		}
		if edit != nil {
			edit(o)
		}
		f.options = append(f.options, o)
	}
	return f
}

func (f *fleet) stopAll() {
	for i := range f.servers {
		f.stop(i)
	}
}

func freePorts(t testing.TB, n int) (ports []int) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (f *fleet) start(i int) {
	s, err := server.NewServer(f.options[i].Clone())
	require.NoError(f.t, err)
	s.Start()
	f.mu.Lock()
	f.servers[i] = s
	f.mu.Unlock()
}

func (f *fleet) stop(i int) {
	f.mu.Lock()
	s := f.servers[i]
	f.mu.Unlock()
	s.Shutdown()
	s.WaitForShutdown()
}

// awaitReady waits until the servers take connections, know each other, and
// have a leader.
func (f *fleet) awaitReady() { f.until("the servers are ready", f.ready) }

func (f *fleet) ready() bool {
	leader := len(f.servers) == 1 || !f.options[0].JetStream
	for _, s := range f.servers {
		if !s.ReadyForConnections(time.Second) || len(f.servers) > 1 && s.NumRoutes() < len(f.servers)-1 {
			return false
		}
		leader = leader || s.JetStreamIsLeader()
	}
	return leader && (len(f.servers) == 1 || f.routed())
}

// routed reports whether subscriptions at each server are known at all others:
// routes that were just made do not know what was there before.
func (f *fleet) routed() bool {
	var clients []*client.Conn
	for i := range f.servers {
		nc, err := client.Connect("nats://" + f.addr(i))
		if err != nil {
			return false
		}
		defer nc.Close()
		clients = append(clients, nc)
	}
	for _, to := range clients {
		for _, from := range clients {
			subject := client.NewInbox()
			sub, err := to.SubscribeSync(subject)
			if err != nil || to.Flush() != nil {
				return false
			}
			heard := f.within(2*time.Second, func() bool {
				if from.Publish(subject, nil) != nil {
					return false
				}
				_, err := sub.NextMsg(50 * time.Millisecond)
				return err == nil
			})
			if !heard {
				return false
			}
		}
	}
	return true
}

func (f *fleet) until(what string, cond func() bool) {
	f.t.Helper()
	require.True(f.t, f.within(30*time.Second, cond), "this did not happen: "+what)
}

func (f *fleet) within(d time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(d); !cond(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func (f *fleet) addr(i int) string { return fmt.Sprint("127.0.0.1:", f.options[i].Port) }

// leader returns which server leads a stream, or -1.
func (f *fleet) leader(stream string) int {
	for i, s := range f.servers {
		if s.Running() && s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
			return i
		}
	}
	return -1
}

// stepDown has the leader of a stream give up, and waits for the next one. A
// stream that is not there has no home that could move.
func (f *fleet) stepDown(ctx context.Context, stream string) error {
	nc, err := client.Connect("nats://" + f.addr(0))
	if err != nil {
		return err
	}
	defer nc.Close()
	before := f.leader(stream)
	if before < 0 {
		return nil
	}
	for {
		reply, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil)
		if err != nil {
			return err
		}
		if !bytes.Contains(reply.Data, []byte(`"error"`)) {
			break
		}
		select { // there is no leader at the moment
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", reply.Data, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	for f.leader(stream) < 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// cut makes the routes of a server silent, in both directions.
func (f *fleet) cut(i int, silent bool) {
	for between, p := range f.routes {
		if between[0] == i || between[1] == i {
			p.Hold(silent)
		}
	}
}

// newProxy returns a proxy that is closed when the test ends.
func newProxy(t testing.TB, target string) *tcpproxy.Proxy {
	p, err := tcpproxy.New(target)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// within is a context for a fault.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("the fault takes too long"))
	t.Cleanup(cancel)
	return ctx
}
