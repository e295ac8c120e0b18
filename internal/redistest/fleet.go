package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/redis/rueidis"
)

// A fleet is what a Cluster and a Server have in common: nodes, and clients
// that reach them.
type fleet struct {
	options  Options
	cluster  bool
	platform platform
	nodes    []*Node

	// net is between all clients and the nodes. When a node is cut off Docker
	// would close its clients' connections, which real networks do not.
	net *Net
}

// launch starts n servers and waits until they answer.
func launch(ctx context.Context, o Options, n int, cluster bool) (*fleet, error) {
	p, err := newPlatform(ctx, o, cluster)
	if err != nil {
		return nil, err
	}
	f := &fleet{options: o, cluster: cluster, platform: p, nodes: make([]*Node, n), net: new(Net)}
	err = each(f.nodes, func(i int, _ *Node) error {
		m, err := p.launch(ctx, i, o.serverArgs(cluster))
		if err != nil {
			return err
		}
		f.nodes[i] = &Node{fleet: f, machine: m}
		return f.nodes[i].waitAnswering(ctx)
	})
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *fleet) close() error {
	f.net.HealAll()
	sound := make(map[machine]bool)
	for _, n := range f.nodes {
		if n == nil {
			continue
		}
		n.forget()
		sound[n.machine] = n.reachable()
		n.set(&n.closed, true)
	}
	return f.platform.close(func(m machine) bool { return sound[m] })
}

// Close stops and removes the servers. Clients should be closed before.
func (f *fleet) Close() error { return f.close() }

// ClientOption returns the options with which a client reaches the servers.
// Each call returns new ones, which the caller may change.
func (f *fleet) ClientOption() rueidis.ClientOption {
	var addrs []string
	for _, n := range f.nodes {
		addrs = append(addrs, n.Addr())
	}
	return rueidis.ClientOption{
		InitAddress:       addrs,
		DialCtxFn:         f.net.wrap(f.dial),
		DisableCache:      true,
		ForceSingleClient: !f.cluster,
	}
}

// HostAddrs returns where each node can be dialed from here, by the address
// that it announces. It is for clients in other processes of this machine.
func (f *fleet) HostAddrs(ctx context.Context) (map[string]string, error) {
	addrs := make(map[string]string)
	for _, n := range f.nodes {
		addr, err := n.HostAddr(ctx)
		if err != nil {
			return nil, err
		}
		addrs[n.Addr()] = addr
	}
	return addrs, nil
}

// dial connects to the node that announces addr.
func (f *fleet) dial(ctx context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
	for _, n := range f.nodes {
		if n.Addr() == addr {
			return n.dial(ctx, d, c)
		}
	}
	return nil, fmt.Errorf("no node of these tests has the address %s", addr)
}

// Client returns a client of the servers, which is closed when the test ends.
// The functions change the result of [fleet.ClientOption], in their order.
func (f *fleet) Client(tb testing.TB, opts ...func(*rueidis.ClientOption)) rueidis.Client {
	tb.Helper()
	o := f.ClientOption()
	// A test makes tens of connections, and by default each has more than a
	// megabyte of buffers and queue.
	o.ReadBufferEachConn, o.WriteBufferEachConn, o.RingScaleEachConn = 64<<10, 64<<10, 8
	for _, opt := range opts {
		opt(&o)
	}
	c, err := rueidis.NewClient(o)
	if err != nil {
		tb.Fatalf("connect a client: %v", err)
	}
	tb.Cleanup(c.Close)
	return c
}

// repair undoes the faults of all nodes.
func (f *fleet) repair(ctx context.Context) error {
	return each(f.nodes, func(_ int, n *Node) error { return n.Repair(ctx) })
}
