package redispubsub

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"github.com/redis/rueidis"
)

type dialFunc func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// dialerOf returns the function with which a client with these options dials.
func dialerOf(option rueidis.ClientOption) dialFunc {
	switch {
	case option.DialCtxFn != nil:
		return option.DialCtxFn
	case option.DialFn != nil:
		return func(_ context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
			return option.DialFn(addr, d, c)
		}
	}
	return func(ctx context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
		if c != nil {
			return (&tls.Dialer{NetDialer: d, Config: c}).DialContext(ctx, "tcp", addr)
		}
		return d.DialContext(ctx, "tcp", addr)
	}
}

// conns keeps track of the connections of a client, to be able to close them.
type conns struct {
	mu     sync.Mutex
	all    map[*ownConn]struct{}
	closed bool
}

type ownConn struct {
	net.Conn
	of *conns
}

func (c *ownConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.all, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// dialer returns a function that dials with dial until ctx ends, and keeps the
// connections.
func (c *conns) dialer(ctx context.Context, dial dialFunc) dialFunc {
	return func(dialing context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		dialing, cancel := context.WithCancel(dialing)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		conn, err := dial(dialing, addr, d, t)
		if err != nil {
			return nil, err
		}
		own := &ownConn{conn, c}
		c.mu.Lock()
		defer c.mu.Unlock()
		if ctx.Err() != nil || c.closed {
			conn.Close()
			return nil, net.ErrClosed
		}
		if c.all == nil {
			c.all = make(map[*ownConn]struct{})
		}
		c.all[own] = struct{}{}
		return own, nil
	}
}

// close closes all connections, including those that are dialed later.
func (c *conns) close() {
	c.mu.Lock()
	c.closed = true
	all := c.all
	c.all = nil
	c.mu.Unlock()
	for conn := range all {
		conn.Conn.Close()
	}
}
