package redispubsub

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fanoutgo/fanout/internal/wire"
)

const slots = wire.Slots

// A table says who owns the slots. Without a cluster it has one owner. One
// goroutine makes it; then it is in use, by any number of goroutines, and only
// note changes it.
type table struct {
	addrs    []string            // [0] is "": no owner
	made     [slots]uint32       // the owners when the table was made, as indexes of addrs
	ids      map[string]string   // of owners, by address
	replicas map[string][]string // of owners, by their addresses

	// A few slots get other owners while the table is in use. An atomic for each
	// slot would make a table, of which a hub makes some each second, a hundred
	// times as expensive under the race detector.
	noted atomic.Bool // notes has entries
	notes sync.Map    // indexes of addrs, by slot
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

// give gives slots to the address with an index. Only the goroutine that makes
// the table may call it.
func (t *table) give(first, last int, n uint32) {
	for slot := first; slot <= last; slot++ {
		t.made[slot] = n
	}
}

// owners returns the owners of all slots, as indexes of addrs. Callers do not
// change them.
func (t *table) owners() *[slots]uint32 {
	if !t.noted.Load() {
		return &t.made
	}
	all := t.made
	t.notes.Range(func(slot, n any) bool {
		all[slot.(uint16)] = n.(uint32)
		return true
	})
	return &all
}

// describe notes the ID of an owner. Only the goroutine that makes the table
// may call it.
func (t *table) describe(owner, id string) { t.ids[owner] = id }

// addReplica notes a replica of an owner. Only the goroutine that makes the
// table may call it.
func (t *table) addReplica(owner, addr string) {
	if addr != "" && addr != owner && !slices.Contains(t.replicas[owner], addr) {
		t.replicas[owner] = append(t.replicas[owner], addr)
	}
}

// at returns the owner of a slot; "" if it has none.
func (t *table) at(slot uint16) string {
	if t.noted.Load() {
		if n, ok := t.notes.Load(slot); ok {
			return t.addrs[n.(uint32)]
		}
	}
	return t.addrs[t.made[slot]]
}

// empty reports whether the table names no owner of any slot.
func (t *table) empty() bool { return len(t.addrs) == 1 }

// note gives a slot to another owner, if the table has that owner's address. It
// reports whether it has.
func (t *table) note(slot uint16, addr string) (known bool) {
	n := slices.Index(t.addrs, addr)
	if n > 0 && t.at(slot) != addr {
		t.notes.Store(slot, uint32(n))
		t.noted.Store(true)
	}
	return n > 0
}

// owns reports whether an address owns a slot.
func (t *table) owns(addr string) bool {
	n := slices.Index(t.addrs, addr)
	return n > 0 && slices.Contains(t.owners()[:], uint32(n))
}

// credit gives an address all slots that another table says it owns. Only the
// goroutine that makes the table may call it.
func (t *table) credit(addr string, says *table) {
	theirs := slices.Index(says.addrs, addr)
	if theirs < 0 {
		return
	}
	ours := t.add(addr)
	for slot, n := range says.owners() {
		if n == uint32(theirs) {
			t.made[slot] = ours
		}
	}
}
