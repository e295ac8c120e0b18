package fanout

import (
	"reflect"
	"sync"
)

// attached are the adapters of this process's hubs. New closes an adapter when
// it fails, but not one that was given to a second hub by mistake.
var attached adapters

type adapters struct{ all sync.Map }

func (s *adapters) add(a Adapter) {
	if isKey(a) {
		s.all.Store(a, nil)
	}
}

func (s *adapters) remove(a Adapter) {
	if isKey(a) {
		s.all.Delete(a)
	}
}

func (s *adapters) has(a Adapter) bool {
	if !isKey(a) {
		return false
	}
	_, ok := s.all.Load(a)
	return ok
}

// isKey reports whether an adapter can be a key of a map.
func isKey(a Adapter) bool { return reflect.ValueOf(a).Comparable() }

// isNil reports whether an adapter is a nil pointer, or the like, in a non-nil
// interface.
func isNil(a Adapter) bool {
	switch v := reflect.ValueOf(a); v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan:
		return v.IsNil()
	}
	return false
}
