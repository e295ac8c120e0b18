package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/soak/world"
)

// A fault is a world.Fault that happens to a cluster or to its clients.
type fault struct {
	name   string
	happen func(context.Context, *trial) error

	lossy, doubtful, twoOrders, moves, takesOver bool // see world.Fault
}

// in returns the fault as one of a trial's world.
func (f fault) in(t *trial) world.Fault {
	return world.Fault{
		Name: f.name, Lossy: f.lossy, Doubtful: f.doubtful, TwoOrders: f.twoOrders, Moves: f.moves, TakesOver: f.takesOver,
		Happen: func(ctx context.Context, w *world.World) error {
			t.World = w
			return f.happen(ctx, t)
		},
	}
}

// allFaults returns the faults of the suite. A restart loses what servers have
// not written to their disks.
func allFaults(persist bool) []fault {
	return []fault{
		{name: "slots move and return", happen: moveSlots, moves: true},
		{name: "primary killed, and back", happen: killPrimary, lossy: true, takesOver: true},
		// Nothing is lost, but the server cannot be sure. A hub that was there
		// can; a client that resumes at another hub may get a gap of unknown
		// size.
		{name: "manual failover", happen: failover, doubtful: true, twoOrders: true, takesOver: true},
		{name: "primary paused for 1 s", happen: pause(time.Second)},
		{name: "primary paused for 3 s", happen: pause(3 * time.Second), lossy: true, twoOrders: true, takesOver: true},
		{name: "primary paused until replaced", happen: pauseLong, lossy: true, twoOrders: true, takesOver: true},
		{name: "primary off the network", happen: offNetwork, lossy: true, twoOrders: true, takesOver: true},
		{name: "hub cut from one node", happen: cutOne},
		{name: "hub cut from all nodes", happen: cutAll},
		{name: "hub's connections reset", happen: resetAll},
		{name: "CLIENT KILL", happen: killClients},
		{name: "output buffer full", happen: overflow},
		{name: "cluster restarts", happen: restart, lossy: !persist, doubtful: true},
		{name: "SCRIPT and FUNCTION FLUSH", happen: flush},
	}
}

// named returns the faults whose names contain a word.
func named(faults []fault, word string) (list []fault) {
	for _, f := range faults {
		if strings.Contains(f.name, word) {
			list = append(list, f)
		}
	}
	return list
}

// primary returns a random primary that has a replica.
func (w *trial) primary() (*redistest.Node, error) {
	nodes := w.cluster.Primaries()
	for _, i := range w.Random.Perm(len(nodes)) {
		if len(w.cluster.ReplicasOf(nodes[i])) > 0 {
			return nodes[i], nil
		}
	}
	return nil, errors.New("no primary has a replica")
}

// moveSlots moves slots, 1,000 by default, those of rooms first, and back.
func moveSlots(ctx context.Context, w *trial) error {
	nodes := w.cluster.Primaries()
	p := w.Random.Perm(len(nodes))
	from, to := nodes[p[0]], nodes[p[1]]
	taken := make(map[int]bool)
	var slots []int
	take := func(slot int) {
		if len(slots) < w.config.slots && !taken[slot] {
			taken[slot] = true
			slots = append(slots, slot)
		}
	}
	owned := w.cluster.SlotsOf(from)
	for _, r := range w.Rooms {
		if w.cluster.Owner(slotOf(r)) == from {
			take(slotOf(r))
		}
	}
	for _, s := range owned {
		take(s)
	}
	if err := w.cluster.MigrateSlots(ctx, from, to, slots); err != nil {
		return err
	}
	if err := w.Hearing(ctx); err != nil {
		return err
	}
	return w.cluster.MigrateSlots(ctx, to, from, slots)
}

func killPrimary(ctx context.Context, w *trial) error {
	n, err := w.primary()
	if err != nil {
		return err
	}
	if err := n.Kill(ctx); err != nil {
		return err
	}
	if err := w.cluster.WaitHealthy(ctx); err != nil {
		return err
	}
	if err := w.Hearing(ctx); err != nil {
		return err
	}
	return n.Start(ctx)
}

// failover asks a replica to take over.
func failover(ctx context.Context, w *trial) error {
	n, err := w.rested(ctx)
	if err != nil {
		return err
	}
	replica := w.cluster.ReplicasOf(n)[0]
	ctx, cancel := context.WithTimeout(ctx, world.Patience)
	defer cancel()
	err = w.cluster.Failover(ctx, replica)
	w.failedOver[n], w.failedOver[replica] = time.Now(), time.Now()
	return err
}

// rested returns a primary whose replica was not elected recently. Redis counts
// the votes of the previous election if that was less than twice the node
// timeout ago: then the replica believes that it is primary, with an epoch that
// no other node accepts, and the primary refuses writes for 5 s.
func (w *trial) rested(ctx context.Context) (*redistest.Node, error) {
	const rest = 6 * time.Second
	for {
		n, err := w.primary()
		if err != nil {
			return nil, err
		}
		wait := time.Until(w.failedOver[n].Add(rest))
		if wait <= 0 {
			return n, nil
		}
		t := time.NewTimer(wait / 4) // another one may be ready earlier
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

func pause(d time.Duration) func(context.Context, *trial) error {
	return func(ctx context.Context, w *trial) error {
		n, err := w.primary()
		if err != nil {
			return err
		}
		if err := n.Pause(ctx); err != nil {
			return err
		}
		t := time.NewTimer(d) // the fault lasts that long
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return n.Unpause(context.WithoutCancel(ctx))
	}
}

// pauseLong pauses a primary until it has been replaced, and lets it continue.
func pauseLong(ctx context.Context, w *trial) error {
	n, err := w.primary()
	if err != nil {
		return err
	}
	if err := n.Pause(ctx); err != nil {
		return err
	}
	err = w.cluster.WaitHealthy(ctx) // those that are not paused
	if err == nil {
		err = w.Hearing(ctx)
	}
	return errors.Join(err, n.Unpause(context.WithoutCancel(ctx)))
}

func offNetwork(ctx context.Context, w *trial) error {
	n, err := w.primary()
	if err != nil {
		return err
	}
	if err := n.Cut(ctx); err != nil {
		return err
	}
	if err := w.cluster.WaitHealthy(ctx); err != nil {
		return err
	}
	if err := w.Hearing(ctx); err != nil {
		return err
	}
	return n.Heal(ctx)
}

// anyHub returns a random hub, and what is between it and the servers.
func (w *trial) anyHub() (int, *redistest.Net) {
	i := w.Random.IntN(len(w.Hubs))
	return i, w.nets[i]
}

// cutOne cuts a hub from a node until the hub notices.
func cutOne(ctx context.Context, w *trial) error {
	n, err := w.primary()
	if err != nil {
		return err
	}
	i, net := w.anyHub()
	noticed := w.notices(ctx, i)
	net.Cut(n.Addr())
	defer net.Heal(n.Addr())
	return noticed()
}

func cutAll(ctx context.Context, w *trial) error {
	i, net := w.anyHub()
	noticed := w.notices(ctx, i)
	net.CutAll()
	defer net.HealAll()
	return noticed()
}

func resetAll(ctx context.Context, w *trial) error {
	i, net := w.anyHub()
	noticed := w.notices(ctx, i)
	net.ResetAll()
	defer net.HealAll()
	return noticed()
}

// notices returns a function that waits until a hub has noticed that a link is
// down.
func (w *trial) notices(ctx context.Context, hub int) func() error {
	before := w.Hubs[hub].Stats().Interruptions
	return func() error {
		return w.Await(ctx, "the hub notices", func() string {
			if w.Hubs[hub].Stats().Interruptions > before {
				return ""
			}
			return fmt.Sprintf("hub %d has noticed nothing", hub)
		})
	}
}

// killClients breaks the connections of all subscribers, some times, and once
// all other connections.
func killClients(ctx context.Context, w *trial) error {
	for _, typ := range []string{"pubsub", "pubsub", "normal", "pubsub"} {
		err := world.InParallel(w.cluster.Nodes(), func(n *redistest.Node) error {
			_, err := n.KillClients(ctx, typ)
			return err
		})
		if err == nil {
			err = w.Hearing(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// overflow makes servers close the connections of a hub that does not read.
func overflow(ctx context.Context, w *trial) error {
	n, err := w.primary()
	if err != nil {
		return err
	}
	if err := limitBuffers(ctx, w, "256kb 0 0"); err != nil {
		return err
	}
	i, net := w.anyHub()
	before, err := subscribers(ctx, n)
	if err != nil {
		return err
	}
	net.CutAll()
	defer net.HealAll()
	for {
		if err := w.shout(ctx, n, (i+1)%world.Hubs); err != nil {
			return err
		}
		now, err := subscribers(ctx, n)
		if err != nil {
			return err
		}
		if now < before {
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waited until node %s closes a subscriber's connection: %w", n, context.Cause(ctx))
		}
	}
	net.HealAll()
	if err := w.Hearing(ctx); err != nil {
		return err
	}
	return limitBuffers(ctx, w, "33554432 8388608 60") // the default
}

func limitBuffers(ctx context.Context, w *trial, limit string) error {
	return world.InParallel(w.cluster.Nodes(), func(n *redistest.Node) error {
		return n.Do(ctx, "CONFIG", "SET", "client-output-buffer-limit", "pubsub "+limit).Error()
	})
}

func subscribers(ctx context.Context, n *redistest.Node) (int, error) {
	list, err := n.Do(ctx, "CLIENT", "LIST", "TYPE", "pubsub").ToString()
	return strings.Count(list, "id="), err
}

// shout publishes long messages in some rooms of a node, from a hub.
func (w *trial) shout(ctx context.Context, n *redistest.Node, from int) error {
	padding := strings.Repeat("x", 64<<10)
	var rooms []*world.Room
	for _, r := range w.Rooms {
		if len(rooms) < 8 && w.cluster.Owner(slotOf(r)) == n {
			rooms = append(rooms, r)
		}
	}
	if len(rooms) == 0 {
		return fmt.Errorf("no room is on node %s", n)
	}
	return world.InParallel(rooms, func(r *world.Room) error {
		r.Say(ctx, from, padding) // its result is recorded
		return nil
	})
}

// restart ends all servers at once and starts them again.
func restart(ctx context.Context, w *trial) error {
	end := (*redistest.Node).Kill
	if w.Random.IntN(2) == 0 {
		end = (*redistest.Node).Stop
	}
	if err := world.InParallel(w.cluster.Nodes(), func(n *redistest.Node) error { return end(n, ctx) }); err != nil {
		return err
	}
	return world.InParallel(w.cluster.Nodes(), func(n *redistest.Node) error { return n.Start(ctx) })
}

// flush deletes all scripts and functions of the servers, some times.
func flush(ctx context.Context, w *trial) error {
	for range 3 {
		err := world.InParallel(w.cluster.Nodes(), func(n *redistest.Node) error {
			return n.Do(ctx, "SCRIPT", "FLUSH").Error()
		})
		if err == nil {
			err = world.InParallel(w.cluster.Primaries(), func(n *redistest.Node) error {
				return n.Do(ctx, "FUNCTION", "FLUSH").Error()
			})
		}
		if err == nil {
			err = w.Hearing(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
