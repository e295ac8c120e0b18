package memory

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/archive"
	"github.com/fanoutgo/fanout/internal/closing"
)

// A Bus is a backend in memory. Adapters of one bus get each other's frames;
// two buses have nothing in common. A bus need not be closed: when its adapters
// are closed, it has no goroutine and no timer. Until then a timer drops
// history that has expired.
//
// All methods may be called concurrently, also from an interceptor. All but
// Close may be called from the methods of a receiver.
type Bus struct {
	interceptor atomic.Pointer[Interceptor]
	reader      atomic.Pointer[Reader]

	// mu guards everything below, and the guarded fields of each Adapter. It is
	// held while a frame is put in the inboxes of its subscribers, so that all
	// of them get one order. It is not held while anything is waited for or
	// user code runs. An inbox's own lock is taken under it.
	mu       sync.Mutex
	channels map[string][]*subscription // no empty ones
	adapters map[*Adapter]struct{}      // not closed
	link     link                       // of new adapters
	history  archive.Store
	sweeper  *time.Timer // of history; nil: nothing has been kept yet
	drop     int         // frames still to be lost
	closed   bool
}

// A subscription is one adapter's interest in one channel, from Subscribe to
// Unsubscribe. Subscribing again makes a new subscription, which does not get
// what was queued for the old one.
type subscription struct {
	adapter *Adapter
	channel string
	over    bool // guarded by the lock of the adapter's inbox
}

// NewBus returns a bus without adapters.
func NewBus() *Bus {
	return &Bus{
		channels: make(map[string][]*subscription),
		adapters: make(map[*Adapter]struct{}),
	}
}

// NewAdapter returns an adapter for one hub, which closes it. The adapter has
// no goroutine before Attach.
//
// An adapter of a closed bus is closed.
func (b *Bus) NewAdapter() *Adapter {
	a := &Adapter{
		bus:           b,
		inbox:         newInbox(),
		subscriptions: make(map[string]*subscription),
		healed:        make(chan struct{}),
		close:         closing.New("memory"),
	}
	a.life, a.end = context.WithCancel(context.Background())

	b.mu.Lock()
	defer b.mu.Unlock()
	a.link = b.link
	if b.closed {
		a.closed = true
		a.end()
		a.close.Begin(nil)
		return a
	}
	b.adapters[a] = struct{}{}
	if len(b.adapters) == 1 {
		b.sweepLocked()
	}
	return a
}

// Channels returns the sorted names of all channels that have subscribers.
func (b *Bus) Channels() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.channels))
}

// Subscribers returns the number of adapters that are subscribed to the
// channel, including those whose link is cut.
func (b *Bus) Subscribers(channel string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.channels[channel])
}

// Close closes every adapter of the bus, and waits for them as [Adapter.Close]
// does. Adapters that are made later are closed.
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

// addLocked adds a subscription.
func (b *Bus) addLocked(s *subscription) {
	s.adapter.subscriptions[s.channel] = s
	b.channels[s.channel] = append(b.channels[s.channel], s)
}

// removeLocked removes a subscription and what is kept for it.
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
