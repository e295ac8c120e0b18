package fanout

import (
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
)

const (
	// numbersIdle is how long a hub remembers how far it has counted in a
	// channel that it has not published to. While it does, receivers can tell
	// how many messages they missed; after that it begins a new stream.
	numbersIdle = 10 * time.Minute
	// maxNumbers bounds how many channels are remembered.
	maxNumbers = 100_000
)

// numbers are how far the hub has counted in channels that are otherwise
// forgotten.
type numbers struct {
	mu    locks.Mutex[locks.Innermost] // guards all below
	kept  map[string]number
	queue []agedChannel // in the order of their time; may hold what was taken since
}

type number struct {
	stream, next uint64
	at           time.Time
}

type agedChannel struct {
	channel string
	at      time.Time
}

// keep remembers the numbers of a channel that is being forgotten.
func (n *numbers) keep(channel string, stream, next uint64) {
	if stream == 0 {
		return // nothing was published
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kept == nil {
		n.kept = make(map[string]number)
	}
	now := time.Now()
	n.kept[channel] = number{stream, next, now}
	n.queue = append(n.queue, agedChannel{channel, now})
	for len(n.queue) > maxNumbers {
		n.drop()
	}
}

// take returns the numbers of a channel, zero if there are none.
func (n *numbers) take(channel string) (stream, next uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := n.kept[channel]
	delete(n.kept, channel)
	return k.stream, k.next
}

// sweep forgets what is too old, and says when the next will be.
func (n *numbers) sweep(now time.Time) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.queue) > 0 {
		if due := n.queue[0].at.Add(numbersIdle); due.After(now) {
			return due
		}
		n.drop()
	}
	n.queue, n.kept = nil, nil
	return time.Time{}
}

// drop forgets the oldest.
func (n *numbers) drop() {
	n.mu.AssertHeld()
	old := n.queue[0]
	n.queue = n.queue[1:]
	if n.kept[old.channel].at.Equal(old.at) {
		delete(n.kept, old.channel)
	}
}
