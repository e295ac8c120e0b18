package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// A table says who owns the slots. Without a cluster it has one owner. Slots may
// be given to other owners while it is in use.
type table struct {
	addrs []string // [0] is "": nobody
	owner [slots]atomic.Uint32
}

// errNoSlots means that a node knows nothing of the cluster: it has lost its
// memory, or has never been a part of it.
var errNoSlots = errors.New("it knows no owner of any slot")

func (t *table) at(slot uint16) string { return t.addrs[t.owner[slot].Load()] }

func (t *table) note(slot uint16, addr string) (known bool) {
	n := slices.Index(t.addrs, addr)
	if n > 0 {
		t.owner[slot].Store(uint32(n))
	}
	return n > 0
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
	reply, err := result.ToArray()
	if err != nil {
		return nil, err
	}
	tab, err := parseSlots(addr, reply)
	if err == nil && len(tab.addrs) == 1 {
		err = errNoSlots
	}
	return tab, err
}

// askRole is askNode without a cluster: the one primary owns everything. A
// server that does not let us ask is taken for it.
func askRole(ctx context.Context, addr string, node rueidis.Client) (*table, error) {
	if replica, err := isReplica(ctx, node); err != nil {
		return nil, err
	} else if replica {
		return nil, errReplica
	}
	tab := &table{addrs: []string{"", addr}}
	for i := range tab.owner {
		tab.owner[i].Store(1)
	}
	return tab, nil
}

// parseSlots reads the reply of CLUSTER SLOTS: first slot, last slot, and the
// nodes, the primary first, each with host and port. A node that does not know
// its own host leaves it empty.
func parseSlots(from string, reply []rueidis.RedisMessage) (*table, error) {
	tab := &table{addrs: []string{""}}
	index := make(map[string]uint32)
	for _, r := range reply {
		row, err := r.ToArray()
		if err != nil || len(row) < 3 {
			return nil, fmt.Errorf("CLUSTER SLOTS of %s: a row of %d", from, len(row))
		}
		first, err1 := row[0].AsInt64()
		last, err2 := row[1].AsInt64()
		primary, err3 := row[2].ToArray()
		if err := errors.Join(err1, err2, err3); err != nil || len(primary) < 2 || first < 0 || last >= slots {
			return nil, fmt.Errorf("CLUSTER SLOTS of %s: slots %d to %d: %w", from, first, last, err)
		}
		host, _ := primary[0].ToString()
		port, _ := primary[1].AsInt64()
		switch host {
		case "":
			host, _, _ = net.SplitHostPort(from)
		case "?":
			continue
		}
		addr := net.JoinHostPort(host, strconv.FormatInt(port, 10))
		n, ok := index[addr]
		if !ok {
			n = uint32(len(tab.addrs))
			index[addr] = n
			tab.addrs = append(tab.addrs, addr)
		}
		for slot := first; slot <= last; slot++ {
			tab.owner[slot].Store(n)
		}
	}
	return tab, nil
}
