package redistest

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"sync"
	"syscall"

	"github.com/redis/rueidis"
)

// A Net is between one client and the servers, and breaks only that client's
// connections. The zero value is ready to use.
//
//	var net redistest.Net
//	client := c.Client(t, net.Option())
//	net.Cut(c.Owner(slot).Addr())
//
// Addresses are those that nodes announce. Call HealAll at the end to release
// connections that were cut.
type Net struct {
	mu      sync.Mutex
	rest    trouble            // of addresses that are not in troubles
	trouble map[string]trouble // by address
	conns   map[*conn]struct{}
	changed chan struct{} // closed and set to nil when trouble changes
}

type trouble int

const (
	none trouble = iota
	silent
	refused
)

type dialFunc = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// Option makes a client use the Net. It wraps the DialCtxFn of the options that
// it is applied to.
func (n *Net) Option() func(*rueidis.ClientOption) {
	return func(o *rueidis.ClientOption) { o.DialCtxFn = n.wrap(o.DialCtxFn) }
}

// Cut makes the way to addr a black hole. On established connections nothing
// arrives in either direction, not even that one side closes. New connections
// hang until their context or their dialer's timeout ends.
func (n *Net) Cut(addr string) { n.set(silent, addr) }

// Reset breaks connections to addr: both sides learn that they were reset, and
// new ones are refused.
func (n *Net) Reset(addr string) { n.set(refused, addr) }

// Heal ends the trouble with addr. As in a real network, connections that were
// cut continue, and no byte of them is lost.
func (n *Net) Heal(addr string) { n.set(none, addr) }

// CutAll cuts all addresses.
func (n *Net) CutAll() { n.setAll(silent) }

// ResetAll resets all addresses.
func (n *Net) ResetAll() { n.setAll(refused) }

// HealAll heals all addresses.
func (n *Net) HealAll() { n.setAll(none) }

func (n *Net) set(t trouble, addr string) {
	n.change(t, func() {
		if n.trouble == nil {
			n.trouble = make(map[string]trouble)
		}
		n.trouble[addr] = t
	}, func(c *conn) bool { return c.addr == addr })
}

func (n *Net) setAll(t trouble) {
	n.change(t, func() { n.rest, n.trouble = t, nil }, func(*conn) bool { return true })
}

// change applies t, first to new connections, then to existing ones.
func (n *Net) change(t trouble, record func(), concerns func(*conn) bool) {
	n.mu.Lock()
	record()
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
	conns := maps.Clone(n.conns)
	n.mu.Unlock()
	for c := range conns {
		if concerns(c) {
			c.suffer(t)
		}
	}
}

// state returns the trouble with addr, and a channel that is closed when it may
// change.
func (n *Net) state(addr string) (trouble, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	t, ok := n.trouble[addr]
	if !ok {
		t = n.rest
	}
	return t, n.changed
}

// wrap returns a dial function whose connections are subject to the Net.
func (n *Net) wrap(dial dialFunc) dialFunc {
	return func(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		if d.Timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d.Timeout)
			defer cancel()
		}
		if err := n.waitPassable(ctx, addr); err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
		inner, err := dial(ctx, addr, d, t)
		if err != nil {
			return nil, err
		}
		return n.add(inner, addr), nil
	}
}

func (n *Net) waitPassable(ctx context.Context, addr string) error {
	for {
		t, changed := n.state(addr)
		switch t {
		case none:
			return nil
		case refused:
			return syscall.ECONNREFUSED
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// add makes a connection subject to the Net, including trouble that began while
// it was dialed.
func (n *Net) add(inner net.Conn, addr string) *conn {
	c := &conn{Conn: inner, net: n, addr: addr}
	n.mu.Lock()
	if n.conns == nil {
		n.conns = make(map[*conn]struct{})
	}
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	t, _ := n.state(addr)
	c.suffer(t)
	return c
}

func (n *Net) remove(c *conn) {
	n.mu.Lock()
	delete(n.conns, c)
	n.mu.Unlock()
}
