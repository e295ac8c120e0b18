package redistest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/redis/rueidis"
)

// A Node is one server. Its methods may be called concurrently.
type Node struct {
	fleet   *fleet
	machine machine
	id      string // in a cluster

	faults sync.Mutex // one at a time

	mu       sync.Mutex // guards what follows
	down     bool       // was killed or stopped
	paused   bool
	cut      bool
	closed   bool           // with the fleet
	client   rueidis.Client // of Do
	hostAddr string         // what machine.hostAddr has returned

	unanswered int // rounds of questions in a row; see stuckAfter
}

// Addr returns the address that the node announces, by which clients know it.
func (n *Node) Addr() string { return n.machine.addr() }

// ID returns the node's ID in its cluster; "" for a single server.
func (n *Node) ID() string { return n.id }

// String returns Addr.
func (n *Node) String() string { return n.Addr() }

// HostAddr returns the address at which the node can be dialed from here.
// Starting or healing the node may change it.
func (n *Node) HostAddr(ctx context.Context) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return "", fmt.Errorf("node %s cannot be reached: %w", n.Addr(), errClosed)
	}
	if n.down || n.cut {
		return "", fmt.Errorf("node %s cannot be reached: %s", n.Addr(), n.stateLocked())
	}
	if n.hostAddr == "" {
		addr, err := n.machine.hostAddr(ctx)
		if err != nil {
			return "", err
		}
		n.hostAddr = addr
	}
	return n.hostAddr, nil
}

// stateLocked returns what is wrong with the node. n.mu is held.
func (n *Node) stateLocked() string {
	var s []string
	for word, is := range map[string]bool{"it does not run": n.down, "it is paused": n.paused, "it is cut off": n.cut} {
		if is {
			s = append(s, word)
		}
	}
	return strings.Join(s, ", ")
}

// reachable reports whether no fault makes the node silent.
func (n *Node) reachable() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.down && !n.paused && !n.cut
}

func (n *Node) dial(ctx context.Context, d *net.Dialer, c *tls.Config) (net.Conn, error) {
	addr, err := n.HostAddr(ctx)
	if err != nil {
		return nil, err
	}
	if c != nil {
		return (&tls.Dialer{NetDialer: d, Config: c}).DialContext(ctx, "tcp", addr)
	}
	return d.DialContext(ctx, "tcp", addr)
}

// Do sends a command to the node, whatever its role, on a connection of its own
// that is made again after faults. It does not wait for a node that is down.
func (n *Node) Do(ctx context.Context, args ...string) rueidis.RedisResult {
	return n.DoMulti(ctx, args)[0]
}

// DoMulti sends commands together.
func (n *Node) DoMulti(ctx context.Context, commands ...[]string) []rueidis.RedisResult {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	c, err := n.conn()
	if err != nil {
		return failed(err, len(commands))
	}
	multi := make(rueidis.Commands, len(commands))
	for i, args := range commands {
		multi[i] = c.B().Arbitrary(args...).Build()
	}
	return c.DoMulti(ctx, multi...)
}

// conn returns the client of Do, a new one after a fault.
func (n *Node) conn() (rueidis.Client, error) {
	n.mu.Lock()
	c := n.client
	n.mu.Unlock()
	if c != nil {
		return c, nil
	}
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{n.Addr()},
		DialCtxFn: func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return n.dial(ctx, d, n.fleet.options.tls)
		},
		ForceSingleClient:   true,
		DisableCache:        true,
		AlwaysRESP2:         true, // RESP3 puts "txt:" before the reply of INFO
		DisableRetry:        true,
		PipelineMultiplex:   -1, // one connection
		ReadBufferEachConn:  64 << 10,
		WriteBufferEachConn: 64 << 10,
	})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Addr(), err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client != nil { // another call was faster
		c.Close()
		return n.client, nil
	}
	n.client = c
	return c, nil
}

// forget drops what a fault invalidates: connections and the published port.
func (n *Node) forget() {
	n.mu.Lock()
	c := n.client
	n.client, n.hostAddr, n.unanswered = nil, "", 0
	n.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

func (n *Node) waitAnswering(ctx context.Context) error {
	err := poll(ctx, "wait for node "+n.Addr(), func(ctx context.Context) error {
		return n.Do(ctx, "PING").Error()
	})
	if err != nil {
		return fmt.Errorf("%w\nits log:\n%s", err, n.Logs(context.WithoutCancel(ctx)))
	}
	return nil
}

// Logs returns the output of the server.
func (n *Node) Logs(ctx context.Context) string { return n.machine.logs(ctx) }

// failed returns n results with an error from before anything was sent.
func failed(err error, n int) []rueidis.RedisResult {
	return slices.Repeat([]rueidis.RedisResult{rueidis.NewErrorResult(err)}, n)
}
