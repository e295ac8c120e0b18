package publishing

import (
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/outbox"
)

// Numbers are the numbers of a hub's channels that are forgotten. The zero
// value is empty. The methods may be called concurrently, and under locks that
// are not innermost.
type Numbers struct {
	mu   locks.Mutex[locks.Innermost] // guards kept
	kept outbox.Remembered
}

func (n *Numbers) keep(channel string, stream, next uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept.Keep(channel, stream, next, time.Now())
}

// take returns the numbers of a channel, and forgets them.
func (n *Numbers) take(channel string) (stream, next uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kept.Take(channel)
}

// Sweep forgets numbers that are too old, and returns when to call it again
// (zero: nothing is left).
func (n *Numbers) Sweep(now time.Time) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kept.Forget(now)
}
