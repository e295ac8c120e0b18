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
// with host and port. A node that does not know its own host leaves it empty.
// Where rows overlap, the later one wins.
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
		switch row.host {
		case "":
			row.host, _, _ = net.SplitHostPort(from)
		case "?":
			continue // the node does not know the owner's address
		}
		addr := net.JoinHostPort(row.host, strconv.FormatInt(row.port, 10))
		n, ok := index[addr]
		if !ok {
			n = tab.add(addr)
			index[addr] = n
		}
		tab.give(row.first, row.last, n)
	}
	return tab, nil
}

// A slotRow is a row of CLUSTER SLOTS: slots, and their primary.
type slotRow struct {
	first, last int
	host        string // "": the host of the node that answers
	port        int64
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
	primary, ok := fields[2].([]any)
	if !ok || len(primary) < 2 {
		return row, errReply
	}
	row.first, row.last = int(first), int(last)
	row.host, _ = primary[0].(string) // nil: the node has no preferred endpoint
	row.port, err = integer(primary[1])
	return row, err
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
