package redispubsub

import (
	"slices"
	"sync/atomic"

	"github.com/fanoutgo/fanout/internal/wire"
)

const slots = wire.Slots

// A table says who owns the slots. Without a cluster it has one owner. Slots
// may be given to other owners while it is in use; the addresses stay.
type table struct {
	addrs    []string // [0] is "": no owner
	owner    [slots]atomic.Uint32
	ids      map[string]string   // of owners, by address
	replicas map[string][]string // of owners, by their addresses
}

// newTable returns a table in which no slot has an owner.
func newTable() *table {
	return &table{addrs: []string{""}, ids: make(map[string]string), replicas: make(map[string][]string)}
}

// soleOwner returns a table in which one address owns all slots.
func soleOwner(addr string) *table {
	t := newTable()
	t.give(0, slots-1, t.add(addr))
	return t
}

// add returns the index of an address. Only the goroutine that makes the table
// may call it.
func (t *table) add(addr string) uint32 {
	n := slices.Index(t.addrs, addr)
	if n < 0 {
		n = len(t.addrs)
		t.addrs = append(t.addrs, addr)
	}
	return uint32(n)
}

// give gives slots to the address with an index.
func (t *table) give(first, last int, n uint32) {
	for slot := first; slot <= last; slot++ {
		t.owner[slot].Store(n)
	}
}

// describe notes the ID of an owner. Only the goroutine that makes the table may
// call it.
func (t *table) describe(owner, id string) { t.ids[owner] = id }

// addReplica notes a replica of an owner. Only the goroutine that makes the
// table may call it.
func (t *table) addReplica(owner, addr string) {
	if addr != "" && addr != owner && !slices.Contains(t.replicas[owner], addr) {
		t.replicas[owner] = append(t.replicas[owner], addr)
	}
}

// at returns the owner of a slot; "" if it has none.
func (t *table) at(slot uint16) string { return t.addrs[t.owner[slot].Load()] }

// empty reports whether the table names no owner of any slot.
func (t *table) empty() bool { return len(t.addrs) == 1 }

// note gives a slot to another owner, if the table has that owner's address. It
// reports whether it has.
func (t *table) note(slot uint16, addr string) (known bool) {
	n := slices.Index(t.addrs, addr)
	if n > 0 {
		t.owner[slot].Store(uint32(n))
	}
	return n > 0
}

// owns reports whether an address owns a slot.
func (t *table) owns(addr string) bool {
	n := slices.Index(t.addrs, addr)
	if n <= 0 {
		return false
	}
	for slot := range t.owner {
		if t.owner[slot].Load() == uint32(n) {
			return true
		}
	}
	return false
}

// credit gives an address all slots that another table says it owns. Only the
// goroutine that makes the table may call it.
func (t *table) credit(addr string, says *table) {
	theirs := slices.Index(says.addrs, addr)
	if theirs < 0 {
		return
	}
	ours := t.add(addr)
	for slot := range says.owner {
		if says.owner[slot].Load() == uint32(theirs) {
			t.owner[slot].Store(ours)
		}
	}
}
