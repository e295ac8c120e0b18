package redistest

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// WaitHealthy waits until all nodes that run and can be reached say that the
// cluster is ok and agree on who owns which slot and who replicates whom, until
// they own all slots, and until all replicas are in sync with their primaries.
// After a fault that means that the cluster has recovered. A node that hangs is
// restarted, and slots that have no owner get one; see stuckAfter and
// orphanedAfter.
func (c *Cluster) WaitHealthy(ctx context.Context) error {
	return poll(ctx, "wait until the cluster is healthy", func(try context.Context) error {
		err := c.health(try)
		if err != nil {
			return errors.Join(err, c.restartStuck(ctx), c.adopt(try))
		}
		return c.inStep(try)
	})
}

// stuckAfter is how many rounds of questions a node may leave unanswered. A
// primary of Redis 8.0.2 that was paused or cut off, and comes back just after
// its replica took over, sometimes hangs for good and uses a whole processor.
// It looks like valkey issue 609: data that it has not read yet makes it
// believe that the two servers replicate each other, and it follows that
// circle. That is a bug of the server, which these tests are not about.
const stuckAfter = 3

// restartStuck restarts nodes that should answer and do not.
func (c *Cluster) restartStuck(ctx context.Context) error {
	return each(c.nodes, func(_ int, n *Node) error {
		n.mu.Lock()
		stuck := n.unanswered >= stuckAfter
		n.mu.Unlock()
		if !stuck {
			return nil
		}
		log.Printf("redistest: node %s hangs, so it is restarted", n.Addr())
		if err := n.Kill(ctx); err != nil {
			return err
		}
		return n.Start(ctx)
	})
}

// count records whether the node has answered.
func (n *Node) count(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if errors.Is(err, context.DeadlineExceeded) {
		n.unanswered++
	} else {
		n.unanswered = 0
	}
}

// health returns in what way the cluster is not healthy.
func (c *Cluster) health(ctx context.Context) error {
	up := slices.DeleteFunc(slices.Clone(c.nodes), func(n *Node) bool { return !n.reachable() })
	if len(up) == 0 {
		return errors.New("no node can be reached")
	}
	views := make([]view, len(up))
	err := each(up, func(i int, n *Node) (err error) {
		views[i], err = n.healthyView(ctx, up)
		n.count(err)
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Addr(), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, v := range views {
		if a, b := views[0].summary(up), v.summary(up); a != b {
			return fmt.Errorf("nodes %s and %s disagree:\n%s\n%s", up[0].Addr(), up[i].Addr(), a, b)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastView, c.orphaned = views[0], time.Time{}
	return nil
}

// inStep returns an error if a replica does not get what its primary writes.
func (c *Cluster) inStep(ctx context.Context) error {
	c.mu.Lock()
	v := c.lastView
	c.mu.Unlock()
	return each(v, func(_ int, e entry) error {
		n := c.node(e.id)
		if n == nil || len(e.slots) == 0 || !n.reachable() {
			return nil
		}
		replicas := 0
		for _, r := range v {
			if r := c.node(r.id); r != nil && r.reachable() && v.replicates(r, n) {
				replicas++
			}
		}
		if replicas == 0 {
			return nil
		}
		return n.inStep(ctx, replicas, e.anyKey())
	})
}

// inStep writes a key, and returns an error if not that many replicas have got
// it. INFO does not show it: for up to a second a primary takes a replica for
// online and sends it nothing, because it waits for an acknowledgement of the
// initial copy. If the primary dies then, everything that was written meanwhile
// is lost.
func (n *Node) inStep(ctx context.Context, replicas int, key string) error {
	r := n.DoMulti(ctx, []string{"SET", key, "1"}, []string{"WAIT", strconv.Itoa(replicas), "500"}, []string{"DEL", key})
	for _, r := range r {
		if err := r.Error(); err != nil {
			return fmt.Errorf("node %s: %w", n.Addr(), err)
		}
	}
	got, err := r[1].AsInt64()
	if err == nil && got < int64(replicas) {
		err = fmt.Errorf("node %s: %d of its %d replicas get what it writes", n.Addr(), got, replicas)
	}
	return err
}

// healthyView returns the node's view of the cluster if it is healthy.
func (n *Node) healthyView(ctx context.Context, up []*Node) (view, error) {
	r := n.DoMulti(ctx, []string{"CLUSTER", "INFO"}, []string{"CLUSTER", "NODES"},
		[]string{"INFO", "replication"}, []string{"CLUSTER", "SHARDS"})
	info, err := r[0].ToString()
	if err != nil {
		return nil, err
	}
	nodes, err := r[1].ToString()
	if err != nil {
		return nil, err
	}
	if state := field(info, "cluster_state"); state != "ok" {
		return nil, fmt.Errorf("cluster_state is %s:\n%s", state, nodes)
	}
	v, err := parseView(nodes)
	if err != nil {
		return nil, err
	}
	replication, err := r[2].ToString()
	if err != nil {
		return nil, err
	}
	if field(replication, "role") == "slave" && field(replication, "master_link_status") != "up" {
		return nil, errors.New("the replica is not linked to its primary")
	}
	if err := v.sound(up); err != nil {
		return nil, err
	}
	return v, online(r[3], up)
}

// online returns an error if a node is not online by CLUSTER SHARDS. Clients
// avoid such nodes: a replica is "loading" until its offset is known to the
// others.
func online(shards rueidis.RedisResult, up []*Node) error {
	list, err := shards.ToArray()
	if err != nil {
		return err
	}
	for _, shard := range list {
		fields, err := shard.AsMap()
		if err != nil {
			return err
		}
		members := fields["nodes"]
		nodes, err := members.ToArray()
		if err != nil {
			return err
		}
		for _, node := range nodes {
			f, err := node.AsMap()
			if err != nil {
				return err
			}
			id, health := text(f["id"]), text(f["health"])
			isUp := slices.ContainsFunc(up, func(n *Node) bool { return n.id == id })
			if isUp && health != "online" {
				return fmt.Errorf("node %s is %s", id, health)
			}
		}
	}
	return nil
}

// sound returns what is wrong, in this view, with the nodes that are up.
func (v view) sound(up []*Node) error {
	covered := 0
	for _, n := range up {
		e, ok := v.entry(n.id)
		if !ok || !e.healthy() {
			return fmt.Errorf("it has no link to %s", n.Addr())
		}
		for _, r := range e.slots {
			covered += r.last - r.first + 1
		}
		if e.is("slave") && !slices.ContainsFunc(up, func(p *Node) bool { return p.id == e.primary }) {
			return fmt.Errorf("%s replicates a node that is down", n.Addr())
		}
	}
	if covered != Slots {
		return fmt.Errorf("nodes that are up own %d slots", covered)
	}
	return nil
}

func text(m rueidis.RedisMessage) string {
	s, _ := m.ToString()
	return s
}

// field reads "name:value" from the reply to INFO or CLUSTER INFO.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
