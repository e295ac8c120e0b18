package presence

import (
	"strings"

	"github.com/fanoutgo/fanout/internal/control"
)

// compare orders numbers, as cmp.Compare does.
func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// sum is the part of a member in the digest: FNV-1a of all that is announced of
// it, finished so that the bits of the number spread.
func sum(e *control.Entry) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	add := func(b []byte) {
		for n := len(b); n > 0; n >>= 8 { // where it ends
			h = (h ^ uint64(byte(n))) * prime
		}
		for _, c := range b {
			h = (h ^ uint64(c)) * prime
		}
		h = (h ^ 0xff) * prime
	}
	add(e.Name)
	add(e.Data)
	h ^= mix(e.Number + mix(e.Since))
	return mix(h)
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// key names a person: a user, or a member that has none.
func key(hub uint64, e *control.Entry) personKey {
	if len(e.Name) > 0 {
		return personKey{user: string(e.Name)}
	}
	return personKey{hub: hub, number: e.Number}
}

// A personKey is a user, or a member that has none.
type personKey struct {
	user        string
	hub, number uint64
}

func (k personKey) compare(other personKey) int {
	if c := strings.Compare(k.user, other.user); c != 0 {
		return c
	}
	if c := compare(k.hub, other.hub); c != 0 {
		return c
	}
	return compare(k.number, other.number)
}
