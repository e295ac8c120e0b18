package redistest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fanoutgo/fanout/internal/wire"
)

// Slots is the number of slots of a cluster.
const Slots = wire.Slots

// Slot returns the slot of a key or a sharded channel.
func Slot(key string) int { return int(wire.Slot(key)) }

// A view is a node's view of the cluster: the lines of its CLUSTER NODES.
type view []entry

type entry struct {
	id, addr string
	flags    []string
	primary  string // the id of a replica's primary
	epoch    int64
	linked   bool
	slots    []slotRange
}

type slotRange struct{ first, last int }

func (e entry) is(flag string) bool { return slices.Contains(e.flags, flag) }

func (e entry) owns(slot int) bool {
	return slices.ContainsFunc(e.slots, func(r slotRange) bool { return r.first <= slot && slot <= r.last })
}

// anyKey returns a key whose slot the node owns.
func (e entry) anyKey() string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("fanout-test:in-step:", i); e.owns(Slot(key)) {
			return key
		}
	}
}

// healthy reports whether the node that wrote the line is connected to the node
// that the line is about.
func (e entry) healthy() bool {
	for _, f := range []string{"fail", "fail?", "handshake", "noaddr"} {
		if e.is(f) {
			return false
		}
	}
	return e.linked || e.is("myself")
}

// parseView reads the reply to CLUSTER NODES.
func parseView(nodes string) (view, error) {
	var v view
	for line := range strings.Lines(nodes) {
		f := strings.Fields(line)
		if len(f) < 8 {
			return nil, fmt.Errorf("a line of CLUSTER NODES is too short: %q", line)
		}
		addr, _, _ := strings.Cut(f[1], "@")
		e := entry{id: f[0], addr: addr, flags: strings.Split(f[2], ","), primary: f[3], linked: f[7] == "connected"}
		e.epoch, _ = strconv.ParseInt(f[6], 10, 64)
		for _, s := range f[8:] {
			if strings.HasPrefix(s, "[") { // a slot that is being moved
				continue
			}
			first, last, isRange := strings.Cut(s, "-")
			if !isRange {
				last = first
			}
			a, err1 := strconv.Atoi(first)
			b, err2 := strconv.Atoi(last)
			if err1 != nil || err2 != nil {
				return nil, fmt.Errorf("cannot parse the slots of CLUSTER NODES: %q", line)
			}
			e.slots = append(e.slots, slotRange{a, b})
		}
		v = append(v, e)
	}
	slices.SortFunc(v, func(a, b entry) int { return cmp.Compare(a.id, b.id) })
	return v, nil
}

func (v view) entry(id string) (entry, bool) {
	i := slices.IndexFunc(v, func(e entry) bool { return e.id == id })
	if i < 0 {
		return entry{}, false
	}
	return v[i], true
}

// replicates reports whether a node is a replica of another.
func (v view) replicates(replica, primary *Node) bool {
	e, ok := v.entry(replica.id)
	return ok && e.is("slave") && e.primary == primary.id
}

// freshness returns the latest change of slots that the view contains.
func (v view) freshness() int64 {
	latest := int64(-1)
	for _, e := range v {
		latest = max(latest, e.epoch)
	}
	return latest
}

// summary returns what nodes have to agree on about the given nodes.
func (v view) summary(about []*Node) string {
	var b strings.Builder
	for _, e := range v {
		if !slices.ContainsFunc(about, func(n *Node) bool { return n.id == e.id }) {
			continue
		}
		role := "primary"
		if e.is("slave") {
			role = "replica of " + e.primary
		}
		fmt.Fprintln(&b, e.id, e.addr, role, e.slots)
	}
	return b.String()
}

// view asks the node for its view of the cluster.
func (n *Node) view(ctx context.Context) (view, error) {
	s, err := n.Do(ctx, "CLUSTER", "NODES").ToString()
	if err != nil {
		return nil, err
	}
	return parseView(s)
}

// view returns the most recent view of the cluster among the nodes that can be
// reached: after a failover or a move of slots some nodes know it before
// others. If none answers it returns the last one known.
func (c *Cluster) view() view {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	views := make([]view, len(c.nodes))
	each(c.nodes, func(i int, n *Node) error {
		if n.reachable() {
			views[i], _ = n.view(ctx)
		}
		return nil
	})
	best := slices.MaxFunc(views, func(a, b view) int { return cmp.Compare(a.freshness(), b.freshness()) })
	c.mu.Lock()
	defer c.mu.Unlock()
	if best != nil {
		c.lastView = best
	}
	return c.lastView
}

// node returns the node of this cluster that has an ID.
func (c *Cluster) node(id string) *Node {
	for _, n := range c.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// Primaries returns the nodes that currently own slots, in the order of their
// slots.
func (c *Cluster) Primaries() []*Node {
	v := slices.DeleteFunc(slices.Clone(c.view()), func(e entry) bool { return len(e.slots) == 0 })
	slices.SortFunc(v, func(a, b entry) int { return cmp.Compare(a.slots[0].first, b.slots[0].first) })
	var nodes []*Node
	for _, e := range v {
		nodes = append(nodes, c.node(e.id))
	}
	return nodes
}

// Owner returns the primary that currently owns the slot; nil if none does.
func (c *Cluster) Owner(slot int) *Node {
	for _, e := range c.view() {
		if e.owns(slot) {
			return c.node(e.id)
		}
	}
	return nil
}

// ReplicasOf returns the current replicas of a primary.
func (c *Cluster) ReplicasOf(primary *Node) []*Node {
	var nodes []*Node
	for _, e := range c.view() {
		if e.is("slave") && e.primary == primary.id {
			nodes = append(nodes, c.node(e.id))
		}
	}
	return nodes
}

// SlotsOf returns the slots that a node currently owns.
func (c *Cluster) SlotsOf(n *Node) []int {
	e, _ := c.view().entry(n.id)
	var slots []int
	for _, r := range e.slots {
		for s := r.first; s <= r.last; s++ {
			slots = append(slots, s)
		}
	}
	return slots
}
