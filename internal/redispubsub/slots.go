package redispubsub

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// This file, info.go and replies.go read replies as the client's ToAny returns
// them: string, int64, []any, nil. (It may return errors and other types, which
// these replies do not have.)

// errReply means that a reply does not have the expected form.
var errReply = errors.New("unexpected form")

// parseSlots reads the reply of CLUSTER SLOTS of the node at an address. A row
// has the first slot, the last slot, and the nodes, the primary first, each
// with host, port and ID. A node that does not know its own host leaves it
// empty. Where rows overlap, the later one wins.
func parseSlots(from string, reply any) (*table, error) {
	rows, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("CLUSTER SLOTS of %s: %w", from, errReply)
	}
	tab := newTable()
	index := make(map[string]uint32)
	for i, r := range rows {
		row, err := parseSlotRow(r)
		if err != nil {
			return nil, fmt.Errorf("CLUSTER SLOTS of %s, row %d: %w", from, i, err)
		}
		addr := row.primary.addr(from)
		if addr == "" {
			continue
		}
		n, ok := index[addr]
		if !ok {
			n = tab.add(addr)
			index[addr] = n
		}
		tab.give(row.first, row.last, n)
		tab.describe(addr, row.primary.id)
		for _, r := range row.replicas {
			tab.addReplica(addr, r.addr(from))
		}
	}
	return tab, nil
}

// A slotRow is a row of CLUSTER SLOTS: slots, and who has them.
type slotRow struct {
	first, last int
	primary     slotNode
	replicas    []slotNode
}

// A slotNode is a node in a row of CLUSTER SLOTS.
type slotNode struct {
	host string // "": the host of the node that answers
	port int64
	id   string // "": it was not told
}

// addr returns the node's address, or "" if the node that has answered, from,
// does not know it.
func (n slotNode) addr(from string) string {
	host := n.host
	switch host {
	case "":
		host, _, _ = net.SplitHostPort(from)
	case "?":
		return ""
	}
	return net.JoinHostPort(host, strconv.FormatInt(n.port, 10))
}

func parseSlotRow(r any) (row slotRow, err error) {
	fields, ok := r.([]any)
	if !ok || len(fields) < 3 {
		return row, errReply
	}
	first, err1 := integer(fields[0])
	last, err2 := integer(fields[1])
	if err := errors.Join(err1, err2); err != nil {
		return row, err
	}
	if first < 0 || last < first || last >= slots {
		return row, fmt.Errorf("%w: slots %d to %d", errReply, first, last)
	}
	row.first, row.last = int(first), int(last)
	if row.primary, err = parseSlotNode(fields[2]); err != nil {
		return row, err
	}
	for _, f := range fields[3:] {
		if replica, err := parseSlotNode(f); err == nil {
			row.replicas = append(row.replicas, replica)
		}
	}
	return row, nil
}

func parseSlotNode(v any) (n slotNode, err error) {
	fields, ok := v.([]any)
	if !ok || len(fields) < 2 {
		return n, errReply
	}
	n.host, _ = fields[0].(string) // nil: the node has no preferred endpoint
	if len(fields) > 2 {
		n.id, _ = fields[2].(string)
	}
	n.port, err = integer(fields[1])
	return n, err
}

// integer reads an integer, which may come as a string.
func integer(v any) (int64, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case string:
		return strconv.ParseInt(v, 10, 64)
	}
	return 0, errReply
}
