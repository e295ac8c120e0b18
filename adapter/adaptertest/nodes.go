package adaptertest

import (
	"context"
	"errors"
	"fmt"

	"github.com/fanoutgo/fanout/adapter"
)

// Nodes are adapters that share one backend, which nobody else uses.
type Nodes struct {
	// Adapters are not attached yet. The suite attaches and closes them;
	// what else they need, such as a client, is for the test to clean up.
	Adapters []adapter.Adapter

	// Faults are what can be done to them.
	Faults Faults
}

// Faults break things. Those that are nil cannot be done; the cases that need
// them are skipped. A node is an index in Nodes.Adapters. The functions may
// wait, within ctx; the suite calls them one at a time, while other goroutines
// use the adapters.
type Faults struct {
	// Break breaks the connections on which the node receives, so that it can
	// connect again at once: CLIENT KILL, a reset by a proxy.
	Break func(ctx context.Context, node int) error

	// Cut makes the backend unreachable for the node, in both directions and
	// for new connections too, until Heal. Other nodes go on. Heal of a node
	// that is not cut does nothing. Both or neither.
	Cut  func(ctx context.Context, node int) error
	Heal func(ctx context.Context, node int) error

	// Move gives the channel another home while everything goes on working,
	// as when a slot migrates. A history goes with it, whole. It returns when
	// that is done.
	Move func(ctx context.Context, channel string) error

	// Fail kills the channel's home without a warning, as when a primary dies
	// and a replica takes over, which may lack the latest of a history. It
	// returns when there is a new home.
	Fail func(ctx context.Context, channel string) error
}

// needs are what a case cannot do without.
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

// lack says what of want these nodes do not offer, if anything.
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
	lacks(needHealth, ok, "fanout.HealthChecker")
	_, ok = n.Adapters[0].(adapter.Historian)
	lacks(needHistory, ok, "fanout.Historian")
	_, ok = n.Adapters[0].(adapter.AsyncPublisher)
	lacks(needAsync, ok, "fanout.AsyncPublisher")
	return errors.Join(missing...)
}
