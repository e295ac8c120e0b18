package publishing

import (
	"time"

	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
)

// KeptFor is how long a hub keeps a channel after it last published to it. The
// channel's numbers are remembered for longer.
const KeptFor = 5 * time.Second

// Inboxes are the inboxes of hubs, as channels that one hub publishes to. Init
// makes them. The methods may be called concurrently.
type Inboxes struct {
	env *Env
	// channel returns the name of a hub's inbox.
	channel func(hub string) string
	// wrap returns the error of a message to the members of a hub.
	wrap func(hub string, err error) error
	// sweepLater arranges for Sweep to be called.
	sweepLater func()

	mu    locks.Mutex[locks.Inboxes] // guards all below
	byHub map[string]*inbox          // by the hub's ID
}

// Init makes s, which is zero, the inboxes that a hub publishes to. The
// functions return the name of an inbox, wrap the error of a message to the
// members of a hub, and arrange for Sweep to be called. None of them waits.
func (s *Inboxes) Init(env *Env, channel func(hub string) string, wrap func(hub string, err error) error, sweepLater func()) {
	s.env, s.channel, s.wrap, s.sweepLater = env, channel, wrap, sweepLater
	s.byHub = make(map[string]*inbox)
}

// To returns the inbox of a hub. It is held.
func (s *Inboxes) To(hub string) *Channel {
	s.mu.Lock()
	b := s.byHub[hub]
	first := b == nil && len(s.byHub) == 0
	if b == nil {
		b = &inbox{all: s, hub: hub}
		b.out.Init(s.env, b, Options{Name: s.channel(hub), Inbox: true})
		s.byHub[hub] = b
	}
	b.uses++
	s.mu.Unlock()
	if first {
		s.sweepLater()
	}
	return &b.out
}

// Sweep forgets the inboxes that nothing was sent to for a while, and returns
// when to call it again (zero: none is left).
func (s *Inboxes) Sweep(now time.Time) (next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hub, b := range s.byHub {
		due := b.used.Add(KeptFor)
		switch {
		case b.uses > 0:
			due = now.Add(KeptFor)
		case !due.After(now):
			delete(s.byHub, hub)
			b.out.Forget()
			continue
		}
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}

// An inbox is the inbox of a hub. It owns its channel.
type inbox struct {
	out  Channel
	all  *Inboxes
	hub  string    // its ID
	uses int       // guarded by Inboxes.mu
	used time.Time // when the last use ended; guarded by Inboxes.mu
}

// Hold implements Owner.
func (b *inbox) Hold() {
	b.all.mu.Lock()
	b.uses++
	b.all.mu.Unlock()
}

// Release implements Owner.
func (b *inbox) Release(n int) {
	b.all.mu.Lock()
	b.uses -= n
	b.used = time.Now()
	b.all.mu.Unlock()
}

// Wrap implements Owner.
func (b *inbox) Wrap(err error) error { return b.all.wrap(b.hub, err) }

// Deliver implements Owner. An inbox has no members.
func (b *inbox) Deliver(item.Entry) {}

// DeliverFrame implements Owner. An inbox has no members.
func (b *inbox) DeliverFrame([]byte) {}
