package memory

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/archive"
)

// A Bus is a backend in memory. Adapters of one bus hear each other; two buses
// have nothing in common. A bus needs no Close: it is gone when its adapters are.
// While it has some, a timer drops what has expired of its histories.
//
// All methods may be called concurrently, also from an interceptor and from
// the methods of a receiver, save those that wait: Close.
type Bus struct {
	interceptor atomic.Pointer[Interceptor]
	reader      atomic.Pointer[Reader]

	// mu guards everything below, and what it guards in each Adapter. It is
	// held while a frame is put in the inboxes of its subscribers, which is
	// what gives all of them one order. It is never held while anyone waits,
	// nor while code of others runs. An inbox's own lock is taken inside it.
	mu       sync.Mutex
	channels map[string][]*subscription // no empty ones
	adapters map[*Adapter]struct{}      // those that are not closed
	link     link                       // what new adapters start with
	history  archive.Store
	sweeper  *time.Timer // of history; nil: nothing has been kept yet
	drop     int         // frames still to be lost
	closed   bool
}

// A subscription is one adapter's interest in one channel, from a Subscribe to
// the Unsubscribe. One that comes later is another subscription, and has no
// part in what was queued for this one.
type subscription struct {
	adapter *Adapter
	channel string
	over    bool // guarded by the lock of the adapter's inbox
}

// NewBus returns a bus that nobody is on.
func NewBus() *Bus {
	return &Bus{
		channels: make(map[string][]*subscription),
		adapters: make(map[*Adapter]struct{}),
	}
}

// NewAdapter returns an adapter for one hub, which closes it. It has no
// goroutine before Attach.
//
// An adapter of a bus that is closed is closed itself.
func (b *Bus) NewAdapter() *Adapter {
	a := &Adapter{
		bus:           b,
		inbox:         newInbox(),
		subscriptions: make(map[string]*subscription),
		healed:        make(chan struct{}),
		gone:          make(chan struct{}),
	}
	a.life, a.end = context.WithCancel(context.Background())

	b.mu.Lock()
	defer b.mu.Unlock()
	a.link = b.link
	if b.closed {
		a.closed = true
		a.end()
		close(a.gone)
		return a
	}
	b.adapters[a] = struct{}{}
	if len(b.adapters) == 1 {
		b.sweepLocked()
	}
	return a
}

// Channels returns the names of all channels that an adapter is subscribed to,
// sorted. A channel whose last subscriber left is forgotten at once.
func (b *Bus) Channels() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.channels))
}

// Subscribers returns how many adapters are subscribed to the channel, those
// with a cut link included.
func (b *Bus) Subscribers(channel string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.channels[channel])
}

// Close closes every adapter of the bus, and waits for them as [Adapter.Close]
// does. There will be no others.
func (b *Bus) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	adapters := slices.Collect(maps.Keys(b.adapters))
	for _, a := range adapters {
		a.shutLocked()
	}
	b.mu.Unlock()
	for _, a := range adapters {
		if err := a.Close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// addLocked enters a subscription.
func (b *Bus) addLocked(s *subscription) {
	s.adapter.subscriptions[s.channel] = s
	b.channels[s.channel] = append(b.channels[s.channel], s)
}

// removeLocked takes a subscription out again, and all that is kept for it.
func (b *Bus) removeLocked(s *subscription) {
	delete(s.adapter.subscriptions, s.channel)
	subs := b.channels[s.channel]
	if len(subs) == 1 {
		delete(b.channels, s.channel)
		return
	}
	i := slices.Index(subs, s)
	b.channels[s.channel] = slices.Delete(subs, i, i+1)
}
