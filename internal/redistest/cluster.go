package redistest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Cluster is a Redis Cluster whose nodes this process has started.
type Cluster struct {
	*fleet

	mu       sync.Mutex // guards all below
	lastView view
	orphaned time.Time // since when slots have had no owner; zero: they have one
}

// StartCluster starts a cluster and waits until it is healthy. If no servers
// can run here the error is ErrUnavailable. Tests call [NewCluster] instead.
func StartCluster(ctx context.Context, o Options) (*Cluster, error) {
	o = o.withDefaults()
	ctx, cancel := within(ctx, 2*patience)
	defer cancel()
	f, err := launch(ctx, o, o.Primaries*(1+o.Replicas), true)
	if err != nil {
		return nil, fmt.Errorf("start a cluster: %w", err)
	}
	c := &Cluster{fleet: f}
	if err := c.form(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("form a cluster: %w", err), c.Close())
	}
	return c, nil
}

// Nodes returns all nodes: first those that were primaries at the start, then
// the replicas.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// form makes a cluster of nodes that do not know each other.
func (c *Cluster) form(ctx context.Context) error {
	if err := each(c.nodes, func(i int, n *Node) error { return c.found(ctx, i, n) }); err != nil {
		return err
	}
	if err := c.meet(ctx); err != nil {
		return err
	}
	err := each(c.nodes[c.options.Primaries:], func(i int, n *Node) error {
		primary := c.nodes[i%c.options.Primaries]
		return n.Do(ctx, "CLUSTER", "REPLICATE", primary.id).Error()
	})
	if err != nil {
		return err
	}
	return c.WaitHealthy(ctx)
}

// found gives the i-th node its epoch and, if it is a primary, its slots.
// Different epochs from the start save the nodes from resolving a conflict.
func (c *Cluster) found(ctx context.Context, i int, n *Node) (err error) {
	if n.id, err = n.Do(ctx, "CLUSTER", "MYID").ToString(); err != nil {
		return err
	}
	if err = n.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)).Error(); err != nil {
		return err
	}
	if p := c.options.Primaries; i < p {
		first, last := i*Slots/p, (i+1)*Slots/p-1
		return n.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last)).Error()
	}
	return nil
}

// meet introduces every node to every other one, which is faster than gossip,
// and waits until all nodes know all others.
func (c *Cluster) meet(ctx context.Context) error {
	err := each(c.nodes, func(i int, n *Node) error {
		for _, other := range c.nodes[i+1:] {
			host, port, _ := strings.Cut(other.Addr(), ":")
			args := []string{"CLUSTER", "MEET", host, port}
			if bus := other.machine.busPort(); bus != "" {
				args = append(args, bus)
			}
			if err := n.Do(ctx, args...).Error(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return poll(ctx, "wait until all nodes know each other", func(ctx context.Context) error {
		return each(c.nodes, func(_ int, n *Node) error { return c.knowsAll(ctx, n) })
	})
}

func (c *Cluster) knowsAll(ctx context.Context, n *Node) error {
	v, err := n.view(ctx)
	if err != nil {
		return err
	}
	for _, other := range c.nodes {
		if e, ok := v.entry(other.id); !ok || !e.healthy() {
			return fmt.Errorf("node %s does not know %s yet", n.Addr(), other.Addr())
		}
	}
	return nil
}

// Repair undoes the faults of all nodes and waits until the cluster is healthy.
func (c *Cluster) Repair(ctx context.Context) error {
	if err := c.repair(ctx); err != nil {
		return err
	}
	return c.WaitHealthy(ctx)
}
