package roomlog

import "github.com/fanoutgo/fanout/internal/locks"

// maxSharedLimits is how many different limits are remembered, for logs to
// share. Applications have a few kinds of rooms; a log beyond that has limits
// of its own, which cost it some 150 bytes.
const maxSharedLimits = 64

// SharedLimits are the limits of several logs: those with equal limits share
// them. The zero value has none. Of may be called concurrently.
type SharedLimits[T Item] struct {
	mu     locks.Mutex[locks.Innermost] // guards shared
	shared map[limitsKey]*Limits[T]
}

type limitsKey struct {
	items, bytes int
	policy       Policy
}

// Of returns the limits of a window, in items and bytes.
func (l *SharedLimits[T]) Of(items, bytes int, policy Policy) *Limits[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := limitsKey{items, bytes, policy}
	if shared := l.shared[key]; shared != nil {
		return shared
	}
	made := NewLimits[T](items, bytes, policy)
	if len(l.shared) < maxSharedLimits {
		if l.shared == nil {
			l.shared = make(map[limitsKey]*Limits[T])
		}
		l.shared[key] = made
	}
	return made
}
