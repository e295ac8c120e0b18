package nats_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

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
	routes  map[[2]int]*proxy // from one server to another
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
	f := &fleet{t: t, servers: make([]*server.Server, n), routes: make(map[[2]int]*proxy)}
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
				o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: p.addr()})
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
	if _, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil); err != nil {
		return err
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
			p.hold(silent)
		}
	}
}

// A proxy passes on connections to a server, until it is told not to.
type proxy struct {
	listener net.Listener
	tasks    sync.WaitGroup

	mu     sync.Mutex
	target string
	held   bool
	gate   chan struct{} // closed while it is not held
	conns  map[net.Conn]bool
	closed bool
}

func newProxy(t testing.TB, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, target: target, gate: make(chan struct{}), conns: make(map[net.Conn]bool)}
	close(p.gate)
	p.tasks.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		l.Close()
		p.hold(false)
		p.reset()
		p.tasks.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// hold makes the proxy silent: bytes stay where they are, and new connections
// get no answer.
func (p *proxy) hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case held && !p.held:
		p.gate = make(chan struct{})
	case !held && p.held:
		close(p.gate)
	}
	p.held = held
}

func (p *proxy) pass() {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	<-gate
}

// reset closes all connections.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) track(c net.Conn, on bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !on {
		delete(p.conns, c)
		return true
	}
	if p.closed {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.tasks.Go(func() { p.serve(c) })
	}
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	if !p.track(c, true) {
		return
	}
	defer p.track(c, false)
	p.pass()
	s, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer s.Close()
	if !p.track(s, true) {
		return
	}
	defer p.track(s, false)
	var copies sync.WaitGroup
	for _, pair := range [][2]net.Conn{{c, s}, {s, c}} {
		copies.Go(func() {
			p.copy(pair[0], pair[1])
			c.Close()
			s.Close()
		})
	}
	copies.Wait()
}

func (p *proxy) copy(to io.Writer, from io.Reader) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.pass()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// within is a context for a fault.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("the fault takes too long"))
	t.Cleanup(cancel)
	return ctx
}
