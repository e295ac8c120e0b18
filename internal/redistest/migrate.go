package redistest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"
)

// MigrateSlots moves slots with their keys from one primary to another, all
// together: a thousand empty ones take well under a second. Clients may
// continue. When it returns, all nodes that can be reached know the new owner.
func (c *Cluster) MigrateSlots(ctx context.Context, from, to *Node, slots []int) error {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	if err := c.migrate(ctx, from, to, slots); err != nil {
		return fmt.Errorf("move %d slots from %s to %s: %w", len(slots), from.Addr(), to.Addr(), err)
	}
	known := func(ctx context.Context) error {
		return poll(ctx, "wait until all nodes know of the move", func(ctx context.Context) error {
			return each(c.nodes, func(_ int, n *Node) error { return n.knowsOwner(ctx, to, slots) })
		})
	}
	for ctx.Err() == nil {
		some, cancel := context.WithTimeout(ctx, gossipTime)
		err := known(some)
		cancel()
		if err == nil {
			return nil
		}
		if err := c.assign(ctx, from, to, slots); err != nil {
			return fmt.Errorf("assign slots again: %w", err)
		}
	}
	return known(ctx)
}

// gossipTime is how long nodes have to learn of a move by themselves.
const gossipTime = 5 * time.Second

// assign makes the owner take the slots that it does not have, with a newer
// epoch, as redis-cli --cluster fix does. A slot that moves to and fro faster
// than its owners' epochs are known returns to the one with the higher epoch.
func (c *Cluster) assign(ctx context.Context, from, to *Node, slots []int) error {
	v, err := to.view(ctx)
	if err != nil {
		return err
	}
	e, _ := v.entry(to.id)
	missing := slices.DeleteFunc(slices.Clone(slots), e.owns)
	if err := to.setSlots(ctx, missing, "IMPORTING", from.id); err != nil {
		return err
	}
	return c.setOwner(ctx, from, to, slots)
}

// MigrateSlot moves one slot, as cluster tools do under load. It does not wait
// for replicas to learn of it.
func (c *Cluster) MigrateSlot(ctx context.Context, from, to *Node, slot int) error {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	if err := c.migrate(ctx, from, to, []int{slot}); err != nil {
		return fmt.Errorf("move slot %d from %s to %s: %w", slot, from.Addr(), to.Addr(), err)
	}
	return nil
}

// migrate does what the Redis documentation prescribes. The new owner is told
// first, so that no slot is without an owner at any time.
func (c *Cluster) migrate(ctx context.Context, from, to *Node, slots []int) error {
	if err := to.setSlots(ctx, slots, "IMPORTING", from.id); err != nil {
		return err
	}
	if err := from.setSlots(ctx, slots, "MIGRATING", to.id); err != nil {
		return err
	}
	if err := from.moveKeys(ctx, to, slots); err != nil {
		return err
	}
	return c.setOwner(ctx, from, to, slots)
}

// setOwner ends a move at all primaries.
func (c *Cluster) setOwner(ctx context.Context, from, to *Node, slots []int) error {
	others := []*Node{to, from}
	for _, n := range c.Primaries() {
		if n != to && n != from && n.reachable() {
			others = append(others, n)
		}
	}
	for _, n := range others {
		if err := n.setSlots(ctx, slots, "NODE", to.id); err != nil {
			return err
		}
	}
	return nil
}

// slotsAtOnce bounds the commands that are sent together: Valkey has its
// replicas confirm each SETSLOT, and a thousand take longer than a reply may.
const slotsAtOnce = 50

func (n *Node) setSlots(ctx context.Context, slots []int, state, id string) error {
	for some := range slices.Chunk(slots, slotsAtOnce) {
		commands := make([][]string, len(some))
		for i, s := range some {
			commands[i] = []string{"CLUSTER", "SETSLOT", strconv.Itoa(s), state, id}
		}
		for _, r := range n.DoMulti(ctx, commands...) {
			if err := r.Error(); err != nil {
				return fmt.Errorf("CLUSTER SETSLOT … %s on %s: %w", state, n.Addr(), err)
			}
		}
	}
	return nil
}

// moveKeys moves the keys of slots that are MIGRATING, which get no new keys.
func (n *Node) moveKeys(ctx context.Context, to *Node, slots []int) error {
	commands := make([][]string, len(slots))
	for i, s := range slots {
		commands[i] = []string{"CLUSTER", "COUNTKEYSINSLOT", strconv.Itoa(s)}
	}
	for i, r := range n.DoMulti(ctx, commands...) {
		count, err := r.AsInt64()
		if err != nil {
			return err
		}
		if count == 0 {
			continue
		}
		if err := n.moveKeysOf(ctx, to, slots[i]); err != nil {
			return fmt.Errorf("move the keys of slot %d: %w", slots[i], err)
		}
	}
	return nil
}

func (n *Node) moveKeysOf(ctx context.Context, to *Node, slot int) error {
	host, port, err := net.SplitHostPort(to.Addr())
	if err != nil {
		return err
	}
	for {
		keys, err := n.Do(ctx, "CLUSTER", "GETKEYSINSLOT", strconv.Itoa(slot), "100").AsStrSlice()
		if err != nil || len(keys) == 0 {
			return err
		}
		args := append([]string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}, keys...)
		if err := n.Do(ctx, args...).Error(); err != nil {
			return err
		}
	}
}

// knowsOwner returns an error if the node can be asked and does not know the
// owner of slots.
func (n *Node) knowsOwner(ctx context.Context, owner *Node, slots []int) error {
	if !n.reachable() {
		return nil
	}
	v, err := n.view(ctx)
	if err != nil {
		return err
	}
	e, _ := v.entry(owner.id)
	for _, s := range slots {
		if !e.owns(s) {
			return fmt.Errorf("node %s does not know that slot %d is owned by %s", n.Addr(), s, owner.Addr())
		}
	}
	return nil
}

// Failover makes a replica the primary of its shard, without loss of data, and
// waits until all nodes that can be reached know that.
func (c *Cluster) Failover(ctx context.Context, replica *Node) error {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	if err := replica.Do(ctx, "CLUSTER", "FAILOVER").Error(); err != nil {
		return fmt.Errorf("fail over to %s: %w", replica.Addr(), err)
	}
	return poll(ctx, "fail over to "+replica.Addr(), func(ctx context.Context) error {
		return each(c.nodes, func(_ int, n *Node) error { return n.knowsPrimary(ctx, replica) })
	})
}

func (n *Node) knowsPrimary(ctx context.Context, primary *Node) error {
	if !n.reachable() {
		return nil
	}
	v, err := n.view(ctx)
	if err != nil {
		return err
	}
	if e, _ := v.entry(primary.id); !e.is("master") || len(e.slots) == 0 {
		return fmt.Errorf("node %s still takes it for a replica", n.Addr())
	}
	return nil
}
