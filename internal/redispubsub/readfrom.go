package redispubsub

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/wire"
)

// This file chooses the nodes at which rooms are subscribed, where that need
// not be the primaries.

// ReadFrom says at which nodes of a cluster rooms are subscribed. Package
// sharded documents the values.
type ReadFrom uint8

// The values of ReadFrom.
const (
	ReadPrimaries ReadFrom = iota
	ReadPrimariesUncounted
	ReadReplicas
	ReadAllNodes
)

// check returns what is wrong with the options for reading.
func (r ReadFrom) check(cfg Config) error {
	switch {
	case r > ReadAllNodes:
		return fmt.Errorf("%w: %s: ReadFrom is %d, which is not defined", adapter.ErrInvalidOption, cfg.Name, r)
	case r >= ReadReplicas && cfg.ProbeInterval < 0:
		return fmt.Errorf("%w: %s: ReadFrom reads rooms from replicas, which needs probes: ProbeInterval must not be negative", adapter.ErrInvalidOption, cfg.Name)
	}
	return nil
}

// spreads reports whether the channels of rooms may be subscribed at replicas.
func (e *Engine) spreads() bool { return e.cfg.ReadFrom >= ReadReplicas && e.mode.replicasDeliver() }

// uncounted reports whether the reply to a publish does not count all
// subscribers of a channel, because some may be at replicas.
func (e *Engine) uncounted(channel string) bool {
	return e.cfg.ReadFrom != ReadPrimaries && e.mode.replicasDeliver() && wire.IsRoom(channel)
}

// receivers returns the result of Publish when a node has counted n
// subscribers.
func (e *Engine) receivers(channel string, n int) int {
	if e.uncounted(channel) {
		return -1
	}
	return e.mode.receivers(n)
}

// A linkKey says to which node a link is, and what for.
type linkKey struct {
	addr    string
	primary string // the primary whose slots are read at addr; "": addr is a primary
}

// owner is the node that owns the slots that are subscribed on the link.
func (k linkKey) owner() string {
	if k.primary != "" {
		return k.primary
	}
	return k.addr
}

const (
	// firstAvoided and lastAvoided bound how long a replica that did not work is
	// not tried again. The time doubles with each failure.
	firstAvoided = time.Second
	lastAvoided  = time.Minute
	// refreshReplicas is how many probe intervals pass until the nodes are asked
	// again which replicas there are, and rooms return to replicas that work
	// again.
	refreshReplicas = 15
)

// readers chooses the replicas from which rooms are read. The methods may be
// called concurrently.
type readers struct {
	engine *Engine

	mu      sync.Mutex
	avoided map[linkKey]*avoidance
}

// An avoidance is what is known about a replica that did not work once.
type avoidance struct {
	works bool // it does again
	until time.Time
	pause backoff.Backoff
}

func (r *readers) init(e *Engine) {
	r.engine = e
	r.avoided = make(map[linkKey]*avoidance)
}

// home returns where a sub has to be subscribed if a node owns its slot.
func (r *readers) home(s *sub, owner string) linkKey {
	if !s.spread || owner == "" {
		return linkKey{addr: owner}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range r.candidates(owner) {
		if a := r.avoided[key]; a == nil || a.works {
			return key
		}
	}
	return linkKey{addr: owner}
}

// candidates returns where rooms of a primary may be subscribed. Each engine
// has an order of its own, which spreads hubs evenly over the nodes and changes
// as little as possible when nodes come and go.
func (r *readers) candidates(primary string) (keys []linkKey) {
	if r.engine.cfg.ReadFrom == ReadAllNodes {
		keys = append(keys, linkKey{addr: primary})
	}
	for _, addr := range r.engine.topology.replicas(primary) {
		keys = append(keys, linkKey{addr: addr, primary: primary})
	}
	if len(keys) > 1 {
		slices.SortFunc(keys, func(a, b linkKey) int { return cmp.Compare(r.weight(b.addr), r.weight(a.addr)) })
	}
	return keys
}

// weight is a node's weight in the order of an engine's nodes.
func (r *readers) weight(addr string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(r.engine.id))
	h.Write([]byte(addr))
	return mix(h.Sum64())
}

// mix spreads a hash over all its bits: inputs that differ in their last bytes
// have similar hashes otherwise.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// avoid keeps rooms from being read from a replica until a later attempt has
// succeeded.
func (r *readers) avoid(key linkKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	a := r.avoided[key]
	if a == nil || now.Sub(a.until) > 10*lastAvoided {
		a = &avoidance{pause: backoff.Backoff{First: firstAvoided, Max: lastAvoided}}
		r.avoided[key] = a
	}
	a.works, a.until = false, now.Add(a.pause.Next())
}

// works notes that a replica can be read from.
func (r *readers) works(key linkKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.avoided[key]; a != nil {
		a.works = true
	}
}

// due returns the replicas of a primary that have been avoided for long enough,
// and would be chosen before the one that is.
func (r *readers) due(primary string) (keys []linkKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, key := range r.candidates(primary) {
		a := r.avoided[key]
		if a == nil || a.works {
			break
		}
		if now.After(a.until) {
			keys = append(keys, key)
		}
	}
	return keys
}

// forget drops what is known about nodes that are no longer replicas.
func (r *readers) forget(tab *table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.avoided {
		if !slices.Contains(tab.replicas[key.primary], key.addr) {
			delete(r.avoided, key)
		}
	}
}

// rebalance begins connections to the nodes at which rooms should be read and
// are not: replicas that are new, or work again. Rooms move there when they
// have shown that they work; see settle. Rooms whose link is to a node of
// another primary than their slot's are moved after that node was asked.
func (r *readers) rebalance(tab *table) {
	e := r.engine
	r.forget(tab)
	want := make(map[linkKey]struct{})
	seen := make(map[string]struct{})
	for _, s := range e.all() {
		home, on, _ := s.state()
		owner := tab.at(s.slot)
		if !s.spread || !on || home == nil || owner == "" {
			continue
		}
		if home.owner() != owner {
			e.topology.verifyLater(home)
			continue
		}
		if key := r.home(s, owner); key != home.linkKey {
			want[key] = struct{}{}
		}
		if _, ok := seen[owner]; !ok {
			seen[owner] = struct{}{}
			for _, key := range r.due(owner) {
				want[key] = struct{}{}
			}
		}
	}
	for key := range want {
		l := e.claim(key)
		if l == nil {
			return // the engine is closed
		}
		if l.health() == nil {
			r.settle(l)
		}
		l.unclaim()
	}
}

// settle is called when a link is connected. It moves the rooms there that
// should be read there.
func (r *readers) settle(l *link) {
	e := r.engine
	if !e.spreads() {
		return
	}
	r.works(l.linkKey)
	for _, s := range e.all() {
		if !s.spread {
			continue
		}
		home, _, _ := s.state()
		if owner := e.topology.owner(s.slot); owner == l.owner() && home != nil && home != l && r.home(s, owner) == l.linkKey {
			e.place(s, owner)
		}
	}
}

// leave is called when a replica does not work. Its rooms move to other nodes
// of the shard.
func (l *link) leave(why error) {
	e := l.engine
	if l.primary == "" || e.ctx.Err() != nil {
		return
	}
	if errors.Is(why, errOtherPrimary) {
		return // its rooms have moved already
	}
	e.journal.Warn("rooms are not read from this replica for now", "node", l.addr, "primary", l.primary, "error", explain(why))
	e.readers.avoid(l.linkKey)
	e.topology.refreshTable()
	for _, s := range l.subs() {
		e.place(s, orElse(e.topology.owner(s.slot), l.primary))
	}
}
