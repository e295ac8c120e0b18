package presence

import (
	"cmp"
	"strings"

	"github.com/fanoutgo/fanout/internal/control"
)

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
	h ^= control.Mix(e.Number + control.Mix(e.Since))
	return control.Mix(h)
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
	return cmp.Or(
		strings.Compare(k.user, other.user),
		cmp.Compare(k.hub, other.hub),
		cmp.Compare(k.number, other.number),
	)
}
