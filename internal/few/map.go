// Package few has a map that is small while it has few entries: most members
// are in one room, many in a few, and there are millions of them.
//
//	one entry      a pointer, no allocation
//	up to 17       a slice as well, searched from the beginning
//	more           a Go map as well, from then on
package few

import "slices"

// A Value has its key. A key does not change.
type Value interface {
	comparable
	Key() string
}

// A Map has values by their keys. The zero value is empty. It is not safe for
// concurrent use. The zero V is not a value that it may hold.
type Map[V Value] struct {
	one  V // the zero V: there is none
	more *more[V]
}

// more is what a map holds besides one.
type more[V Value] struct {
	few  []V
	many map[string]V // instead of few
}

// most is how many values a slice holds.
const most = 16

// Get returns the value with a key, or the zero V.
func (m *Map[V]) Get(key string) (v V) {
	if m.one != v && m.one.Key() == key {
		return m.one
	}
	if m.more == nil {
		return v
	}
	if m.more.many != nil {
		return m.more.many[key]
	}
	for _, v := range m.more.few {
		if v.Key() == key {
			return v
		}
	}
	return v
}

// Put adds a value whose key the map does not have.
func (m *Map[V]) Put(v V) {
	var none V
	if m.one == none {
		m.one = v
		return
	}
	if m.more == nil {
		m.more = new(more[V])
	}
	x := m.more
	if x.many == nil && len(x.few) < most {
		x.few = append(x.few, v)
		return
	}
	if x.many == nil {
		x.many = make(map[string]V, 2*most)
		for _, old := range x.few {
			x.many[old.Key()] = old
		}
		x.few = nil
	}
	x.many[v.Key()] = v
}

// Delete removes the value with a key, if there is one.
func (m *Map[V]) Delete(key string) {
	var none V
	switch {
	case m.one != none && m.one.Key() == key:
		m.one = none
	case m.more == nil:
	case m.more.many != nil:
		delete(m.more.many, key)
	default:
		m.more.few = slices.DeleteFunc(m.more.few, func(v V) bool { return v.Key() == key })
	}
}

// List returns the values in a slice of the caller's, in no order.
func (m *Map[V]) List() []V { return slices.Collect(m.All) }

// All calls yield for each value, in no order, until it returns false.
func (m *Map[V]) All(yield func(V) bool) {
	var none V
	if m.one != none && !yield(m.one) || m.more == nil {
		return
	}
	for _, v := range m.more.few {
		if !yield(v) {
			return
		}
	}
	for _, v := range m.more.many {
		if !yield(v) {
			return
		}
	}
}
