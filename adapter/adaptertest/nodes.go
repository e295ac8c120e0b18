package adaptertest

import (
	"context"
	"errors"
	"fmt"

	"github.com/fanoutgo/fanout/adapter"
)

// Nodes are adapters that share one backend, which nothing else uses.
type Nodes struct {
	// Adapters are not attached yet. The suite attaches and closes them. The
	// test cleans up whatever else they need, such as a client.
	Adapters []adapter.Adapter

	// Faults are what the suite may do to the adapters.
	Faults Faults
}

// Faults break things. Cases that need a function that is nil are skipped. A
// node is an index in Nodes.Adapters. The functions may wait until ctx ends.
// The suite calls them one at a time, while other goroutines use the adapters.
type Faults struct {
	// Break breaks the connections on which the node receives, in a way that
	// lets it connect again at once: CLIENT KILL, a reset by a proxy.
	Break func(ctx context.Context, node int) error

	// Cut makes the backend unreachable for the node until Heal: in both
	// directions, also for new connections. Other nodes are not affected. Heal
	// of a node that is not cut does nothing. Set both or neither.
	Cut  func(ctx context.Context, node int) error
	Heal func(ctx context.Context, node int) error

	// Move moves the channel to another home while everything continues to
	// work, as when a slot migrates. Its whole history moves with it. Move
	// returns when the move is complete.
	Move func(ctx context.Context, channel string) error

	// Fail kills the channel's home without a warning, as when a primary dies
	// and a replica takes over, which may lack the latest messages of a
	// history. Fail returns when there is a new home.
	Fail func(ctx context.Context, channel string) error
}

// needs are the faults and capabilities that a case needs.
type needs uint8

const (
	needBreak needs = 1 << iota
	needCut
	needMove
	needFail
	needHealth
	needHistory
	needAsync
)

// lack returns which of the needs the nodes do not have, as an error.
func (n Nodes) lack(want needs) error {
	var missing []error
	lacks := func(bit needs, has bool, name string) {
		if want&bit != 0 && !has {
			missing = append(missing, fmt.Errorf("%w: the backend has no %s", errors.ErrUnsupported, name))
		}
	}
	lacks(needBreak, n.Faults.Break != nil, "Faults.Break")
	lacks(needCut, n.Faults.Cut != nil && n.Faults.Heal != nil, "Faults.Cut and Heal")
	lacks(needMove, n.Faults.Move != nil, "Faults.Move")
	lacks(needFail, n.Faults.Fail != nil, "Faults.Fail")
	_, ok := n.Adapters[0].(adapter.HealthChecker)
	lacks(needHealth, ok, "adapter.HealthChecker")
	_, ok = n.Adapters[0].(adapter.Historian)
	lacks(needHistory, ok, "adapter.Historian")
	_, ok = n.Adapters[0].(adapter.AsyncPublisher)
	lacks(needAsync, ok, "adapter.AsyncPublisher")
	return errors.Join(missing...)
}
