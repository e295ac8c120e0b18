package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
)

// This file has the questions of the topology: it asks the nodes who owns the
// slots, and makes the client learn of nodes.

const (
	// askTimeout bounds one question to one node.
	askTimeout = 500 * time.Millisecond
	// askAtOnce is the most nodes that are asked in one round.
	askAtOnce = 8
	// maxPokes bounds the channels for which one round pokes the client.
	maxPokes = 8
)

// errNoSlots means that a node knows nothing about the cluster: it has lost its
// data, or was never a part of it.
var errNoSlots = errors.New("it knows no owner of any slot")

// askNodes asks some nodes at once and sends their answers as they come.
func (t *topology) askNodes(nodes map[string]rueidis.Client) <-chan *table {
	answers := make(chan *table, askAtOnce)
	var wg sync.WaitGroup
	n := 0
	for addr, node := range nodes { // in random order
		if n++; n > askAtOnce {
			break
		}
		wg.Go(func() {
			tab, err := t.askNode(addr, node)
			if err != nil {
				t.failure.Store(&failure{fmt.Errorf("%s: %w", addr, err)})
				return
			}
			answers <- tab
		})
	}
	go func() { // ends when the questions do, before round returns
		wg.Wait()
		close(answers)
	}()
	return answers
}

// askNode asks one node who owns the slots.
func (t *topology) askNode(addr string, node rueidis.Client) (*table, error) {
	ctx, cancel := context.WithTimeout(t.engine.ctx, askTimeout)
	defer cancel()
	if !t.engine.mode.hasSlots() {
		return askRole(ctx, addr, node)
	}
	result := node.Do(ctx, node.B().ClusterSlots().Build())
	if err := resultError(result); err != nil {
		return nil, err
	}
	reply, err := result.ToAny()
	if err != nil {
		return nil, err
	}
	tab, err := parseSlots(addr, reply)
	if err == nil && tab.empty() {
		err = errNoSlots
	}
	return tab, err
}

// askRole is askNode without a cluster: the one primary owns everything. A
// server that may not be asked counts as the primary.
func askRole(ctx context.Context, addr string, node rueidis.Client) (*table, error) {
	replica, err := isReplica(ctx, node)
	switch {
	case err != nil:
		return nil, err
	case replica:
		return nil, errReplica
	}
	return soleOwner(addr), nil
}

// askOwn asks the node at an address which slots it owns. If the client does
// not know that node, or the node knows nothing, others are asked about it. The
// table is nil if no node has answered.
func (t *topology) askOwn(nodes map[string]rueidis.Client, addr string) *table {
	node := nodes[addr]
	if node == nil {
		return t.askOthers(nodes, addr)
	}
	tab, err := t.askNode(addr, node)
	switch {
	case errors.Is(err, errReplica):
		return newTable() // it owns nothing
	case errors.Is(err, errNoSlots):
		return t.askOthers(nodes, addr)
	case err != nil:
		return nil
	}
	return tab
}

// askOthers asks nodes which slots the one at an address owns: all that any of
// them assigns to it, since the client may know less than they do. The table is
// nil if no node has answered.
func (t *topology) askOthers(nodes map[string]rueidis.Client, addr string) (tab *table) {
	for answer := range t.askNodes(nodes) {
		if tab == nil {
			tab = answer
		} else {
			tab.credit(addr, answer)
		}
	}
	return tab
}

// pokeClient sends commands in the slots of channels through the client. The
// client is redirected to their owner, or finds that the owner it knows is
// gone, and then looks for the nodes of the cluster. That may take long if a
// node is silent, so pokeClient does not wait.
func (t *topology) pokeClient(channels map[string]struct{}) {
	e := t.engine
	if len(channels) == 0 || !t.poking.CompareAndSwap(false, true) {
		return
	}
	e.wg.Go(func() {
		var wg sync.WaitGroup
		for channel := range channels {
			wg.Go(func() { t.pokeFor(channel) })
		}
		wg.Wait()
		t.poking.Store(false)
		t.ask() // the client may know new nodes
	})
}

func (t *topology) pokeFor(channel string) {
	e := t.engine
	ctx, cancel := context.WithTimeout(e.ctx, askTimeout)
	defer cancel()
	// A replica would accept SPUBLISH for its primary's slots, and not say that
	// it is a replica.
	err := e.client.Do(ctx, e.client.B().Exists().Key(channel).Build()).Error()
	if _, refused := rueidis.IsRedisErr(err); refused && e.mode.sharded() {
		e.client.Do(ctx, e.mode.publish(e.client.B(), wire.SameSlot(channel, ":nudge:"+e.id), nil))
	}
}
