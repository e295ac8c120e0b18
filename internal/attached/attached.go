// Package attached remembers which adapters belong to hubs of this process, and
// checks adapters that users give.
package attached

import (
	"reflect"
	"sync"

	"github.com/fanoutgo/fanout/adapter"
)

// Adapters are adapters that belong to hubs. The zero value has none. An
// adapter that cannot be the key of a map is never among them. The methods may
// be called concurrently.
type Adapters struct{ all sync.Map }

// Add puts an adapter in.
func (s *Adapters) Add(a adapter.Adapter) {
	if isKey(a) {
		s.all.Store(a, nil)
	}
}

// Remove takes an adapter out.
func (s *Adapters) Remove(a adapter.Adapter) {
	if isKey(a) {
		s.all.Delete(a)
	}
}

// Has reports whether an adapter is in.
func (s *Adapters) Has(a adapter.Adapter) bool {
	if !isKey(a) {
		return false
	}
	_, ok := s.all.Load(a)
	return ok
}

// isKey reports whether an adapter can be a key of a map.
func isKey(a adapter.Adapter) bool { return a != nil && reflect.ValueOf(a).Comparable() }

// IsNil reports whether an adapter is a nil pointer, or the like, in a non-nil
// interface.
func IsNil(a adapter.Adapter) bool {
	switch v := reflect.ValueOf(a); v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan:
		return v.IsNil()
	}
	return false
}

// Same reports whether two adapters are the same. Adapters that cannot be
// compared never are.
func Same(a, b adapter.Adapter) bool { return isKey(a) && isKey(b) && a == b }
