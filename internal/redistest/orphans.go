package redistest

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"strconv"
	"time"
)

// orphanedAfter is how long slots may have no owner before WaitHealthy gives
// them one. Redis 7.0.15 sometimes loses one for good: when a primary was
// paused, the replica that took over did not own the slot that had been moved
// to the shard last, and its cluster_state was fail from then on. It looks like
// what redis pull requests 12336 and 12344 mend. That is a bug of the server,
// which these tests are not about.
const orphanedAfter = gossipTime

// adopt gives slots that no node owns to the primary that has keys of them, as
// redis-cli --cluster fix does, and otherwise to the one that other nodes take
// for their owner.
func (c *Cluster) adopt(ctx context.Context) error {
	views := make(map[*Node]view)
	for _, n := range c.nodes {
		if !n.reachable() {
			continue
		}
		v, err := n.view(ctx)
		if err != nil {
			return err
		}
		views[n] = v
	}
	orphans := c.orphans(views)
	c.mu.Lock()
	switch {
	case len(orphans) == 0:
		c.orphaned = time.Time{}
	case c.orphaned.IsZero():
		c.orphaned = time.Now()
	}
	wait := c.orphaned.IsZero() || time.Since(c.orphaned) < orphanedAfter
	c.mu.Unlock()
	if wait {
		return nil
	}
	for slot, n := range orphans {
		n, err := c.holder(ctx, slot, n)
		if err != nil {
			return err
		}
		log.Printf("redistest: slot %d has no owner, so node %s gets it", slot, n.Addr())
		if err := n.Do(ctx, "CLUSTER", "ADDSLOTS", strconv.Itoa(slot)).Error(); err != nil {
			return fmt.Errorf("give slot %d to node %s: %w", slot, n.Addr(), err)
		}
	}
	return nil
}

// holder returns the primary that has keys of a slot; believed if none has.
func (c *Cluster) holder(ctx context.Context, slot int, believed *Node) (*Node, error) {
	for _, n := range c.Primaries() {
		keys, err := n.Do(ctx, "CLUSTER", "COUNTKEYSINSLOT", strconv.Itoa(slot)).AsInt64()
		if err != nil {
			return nil, fmt.Errorf("count the keys of slot %d at node %s: %w", slot, n.Addr(), err)
		}
		if keys > 0 {
			return n, nil
		}
	}
	if believed == nil {
		return nil, fmt.Errorf("no primary can be given slot %d, which has no owner", slot)
	}
	return believed, nil
}

// orphans returns the slots that some node takes for nobody's, and no node for
// its own, and which node others take for the owner of each: some primary if
// nobody does. A node that cannot be reached still owns what others believe it
// to own.
func (c *Cluster) orphans(views map[*Node]view) map[int]*Node {
	believed, owned, unbound := make([]*Node, Slots), make([]bool, Slots), make([]bool, Slots)
	var first *Node // a primary
	isPrimary := func(n *Node) bool { e, _ := views[n].entry(n.id); return e.is("master") }
	for _, n := range c.nodes {
		v := views[n]
		if v == nil {
			continue
		}
		if first == nil && isPrimary(n) {
			first = n
		}
		for s, owner := range c.owners(v) {
			switch {
			case owner == nil:
				unbound[s] = true
			case owner == n || views[owner] == nil:
				owned[s] = true
			case isPrimary(owner):
				believed[s] = owner
			}
		}
	}
	orphans := make(map[int]*Node)
	for s := range Slots {
		if unbound[s] && !owned[s] {
			orphans[s] = cmp.Or(believed[s], first)
		}
	}
	return orphans
}

// owners returns the owner of each slot in a view.
func (c *Cluster) owners(v view) []*Node {
	owners := make([]*Node, Slots)
	for _, e := range v {
		n := c.node(e.id)
		for _, r := range e.slots {
			for s := r.first; s <= r.last; s++ {
				owners[s] = n
			}
		}
	}
	return owners
}
