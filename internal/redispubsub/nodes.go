package redispubsub

import (
	"context"
	"fmt"

	"github.com/redis/rueidis"
)

// This file has the nodes that the topology knows: a pipeline for each address.

// meet takes over the nodes that the client knows. Links to a node that the
// client has dropped are verified: with Sentinel the primary is elsewhere now,
// and in a cluster other nodes know more.
func (t *topology) meet(clients map[string]rueidis.Client) {
	nodes := make(map[string]*pipeline, len(clients))
	for addr, client := range clients {
		p := t.pipeline(addr)
		if p == nil {
			p = newPipeline(t.engine, addr)
		}
		p.client.Store(&client)
		nodes[addr] = p
	}
	before := t.nodes.Swap(&nodes)
	if before == nil {
		return
	}
	for addr, p := range *before {
		if nodes[addr] != nil {
			continue
		}
		p.keeper.close()
		if l := t.engine.link(addr); l != nil {
			t.verifyLater(l)
			t.engine.inspector.inspectSoon(addr)
		}
	}
}

// pipeline returns the pipeline to a node, or nil.
func (t *topology) pipeline(addr string) *pipeline {
	if nodes := t.nodes.Load(); nodes != nil {
		return (*nodes)[addr]
	}
	return nil
}

// client returns the client of a node, or nil.
func (t *topology) client(addr string) rueidis.Client {
	if p := t.pipeline(addr); p != nil {
		return *p.client.Load()
	}
	return nil
}

// node returns the pipeline to the owner of a channel's slot, and its address.
// It waits until the first table is there.
func (t *topology) node(ctx context.Context, channel string) (*pipeline, string, error) {
	select {
	case <-t.known:
	default:
		t.ask()
		select {
		case <-t.known:
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		case <-t.engine.ctx.Done():
			return nil, "", t.engine.errClosed()
		}
	}
	addr := t.owner(t.engine.mode.slot(channel))
	p := t.pipeline(addr)
	if p == nil {
		t.refreshTable()
		t.refreshClient(channel)
		return nil, "", rueidis.ErrNoSlot
	}
	return p, addr, nil
}

// owns reports whether an address is believed to own slots.
func (t *topology) owns(addr string) bool {
	tab := t.current.Load()
	return tab != nil && tab.owns(addr)
}

// troubles returns what is wrong with the nodes that are published to.
func (t *topology) troubles() (errs []error) {
	tab := t.current.Load()
	if tab == nil {
		return nil
	}
	for _, addr := range tab.addrs[1:] {
		if p := t.pipeline(addr); p != nil && tab.owns(addr) {
			if err := p.trouble(); err != nil {
				errs = append(errs, fmt.Errorf("%s: publishing to %s: %w", t.engine.cfg.Name, addr, err))
			}
		}
	}
	return errs
}
