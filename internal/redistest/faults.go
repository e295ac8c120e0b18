package redistest

import (
	"context"
	"errors"
	"fmt"
)

var (
	errDown   = errors.New("it does not run")
	errClosed = errors.New("its fleet was closed, and another may have its address")
)

// Kill ends the server at once. Its data is lost. Its address, its slots and
// what it knows about the cluster are kept for Start.
func (n *Node) Kill(ctx context.Context) error { return n.end(ctx, kill) }

// Stop asks the server to end and waits until it has. The server tells its
// replicas, and saves nothing.
func (n *Node) Stop(ctx context.Context) error { return n.end(ctx, terminate) }

func (n *Node) end(ctx context.Context, s serverSignal) error {
	return n.fault(ctx, map[serverSignal]string{kill: "kill", terminate: "stop"}[s], func(ctx context.Context) error {
		if n.is(&n.down) {
			return errDown
		}
		n.set(&n.down, true)
		n.set(&n.paused, false)
		n.forget()
		return n.machine.signal(ctx, s)
	})
}

// Start starts a server that was killed or stopped, under its old address, and
// waits until it answers. It does not wait for the cluster.
func (n *Node) Start(ctx context.Context) error {
	return n.fault(ctx, "start", func(ctx context.Context) error {
		if err := n.machine.start(ctx); err != nil {
			return err
		}
		n.forget()
		n.set(&n.down, false)
		return n.waitAnswering(ctx)
	})
}

// Pause freezes the server. Connections to it stay open, the system accepts new
// ones, and nothing is answered.
func (n *Node) Pause(ctx context.Context) error {
	return n.fault(ctx, "pause", func(ctx context.Context) error {
		n.set(&n.paused, true)
		return n.machine.signal(ctx, pause)
	})
}

// Unpause lets a paused server continue.
func (n *Node) Unpause(ctx context.Context) error {
	return n.fault(ctx, "unpause", func(ctx context.Context) error {
		err := n.machine.signal(ctx, unpause)
		n.set(&n.paused, err != nil)
		return err
	})
}

// Cut disconnects the node from the network. Neither other nodes nor clients
// reach it, and their connections to it become silent and do not close. It
// needs containers; elsewhere the error is errors.ErrUnsupported, and Must
// skips.
func (n *Node) Cut(ctx context.Context) error {
	return n.fault(ctx, "cut off", func(ctx context.Context) error {
		n.fleet.net.Cut(n.Addr())
		n.forget()
		err := n.machine.cut(ctx)
		if err != nil {
			n.fleet.net.Heal(n.Addr())
		}
		n.set(&n.cut, err == nil)
		return err
	})
}

// Heal reconnects a node that was cut off, under its old address, and waits
// until it answers. Older connections of this process's clients break now.
func (n *Node) Heal(ctx context.Context) error {
	return n.fault(ctx, "heal", func(ctx context.Context) error {
		if err := n.machine.heal(ctx); err != nil {
			return err
		}
		n.forget()
		n.set(&n.cut, false)
		n.fleet.net.Reset(n.Addr())
		n.fleet.net.Heal(n.Addr())
		if !n.reachable() { // it is also paused or down
			return nil
		}
		return n.waitAnswering(ctx)
	})
}

// Repair ends all faults of the node.
func (n *Node) Repair(ctx context.Context) error {
	for _, r := range []struct {
		need bool
		mend func(context.Context) error
	}{{n.is(&n.cut), n.Heal}, {n.is(&n.paused), n.Unpause}, {n.is(&n.down), n.Start}} {
		if !r.need {
			continue
		}
		if err := r.mend(ctx); err != nil {
			return err
		}
	}
	return nil
}

// KillClients closes the connections of a type, such as "pubsub" or "normal",
// and returns how many there were. The connection of [Node.Do] is not closed.
func (n *Node) KillClients(ctx context.Context, typ string) (int, error) {
	killed, err := n.Do(ctx, "CLIENT", "KILL", "TYPE", typ).AsInt64()
	if err != nil {
		return 0, fmt.Errorf("kill the %s clients of node %s: %w", typ, n.Addr(), err)
	}
	return int(killed), nil
}

// fault performs one fault, after the previous one has been performed.
func (n *Node) fault(ctx context.Context, what string, do func(context.Context) error) error {
	n.faults.Lock()
	defer n.faults.Unlock()
	ctx, cancel := within(ctx, patience)
	defer cancel()
	err := errClosed
	if !n.is(&n.closed) {
		err = do(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s node %s: %w", what, n.Addr(), err)
	}
	return nil
}

func (n *Node) is(flag *bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return *flag
}

func (n *Node) set(flag *bool, to bool) {
	n.mu.Lock()
	*flag = to
	n.mu.Unlock()
}
