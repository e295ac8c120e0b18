package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
)

// A Pair is two servers, not in a cluster, that can replicate each other. At
// the start the second is a replica of the first.
type Pair struct{ *fleet }

// NewPair starts a pair that is closed when the test ends. If no servers can
// run here it skips the test.
func NewPair(tb testing.TB, o Options) *Pair {
	tb.Helper()
	p, err := startPair(tb.Context(), o)
	Must(tb, err)
	tb.Cleanup(func() { closeIn(tb, p) })
	return p
}

func startPair(ctx context.Context, o Options) (*Pair, error) {
	ctx, cancel := within(ctx, 2*patience)
	defer cancel()
	f, err := launch(ctx, o.withDefaults(), 2, false)
	if err != nil {
		return nil, fmt.Errorf("start two servers: %w", err)
	}
	p := &Pair{f}
	if err := p.Replicate(ctx, f.nodes[1], f.nodes[0]); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Nodes returns the two servers.
func (p *Pair) Nodes() (first, second *Node) { return p.nodes[0], p.nodes[1] }

// Replicate makes one server a replica of the other, which becomes a primary
// first, and waits until it is in sync. Connections of clients stay open.
func (p *Pair) Replicate(ctx context.Context, replica, primary *Node) error {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	if err := primary.Do(ctx, "REPLICAOF", "NO", "ONE").Error(); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(primary.Addr())
	if err != nil {
		return err
	}
	if err := replica.Do(ctx, "REPLICAOF", host, port).Error(); err != nil {
		return err
	}
	return waitInStep(ctx, primary)
}

// waitInStep waits until a replica gets what is written at its primary.
func waitInStep(ctx context.Context, primary *Node) error {
	return poll(ctx, "wait until the replica is in step", func(ctx context.Context) error {
		return primary.inStep(ctx, 1, "fanout-test:in-step")
	})
}
