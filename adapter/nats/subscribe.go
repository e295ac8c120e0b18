package nats

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/nats/internal/numbers"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/nats-io/nats.go"
)

// A partition is a subject, and the channels of this hub in it. The tracker
// knows its State. Guarded by Adapter.mu.
type partition struct {
	index    int
	sub      *nats.Subscription
	channels map[string]*channel
	empty    time.Time // since when it has had no channels
}

// The states of a channel.
type state uint8

const (
	waiting state = iota // for the first confirmation; it gets no frames yet
	live                 // confirmed
	lost                 // was confirmed, and its receiver was told Interrupted
)

// A channel is a channel that is subscribed, or is being subscribed. Guarded by
// Adapter.mu.
type channel struct {
	name    string
	in      *partition
	state   state
	ready   chan struct{} // closed when it is live, or err is set
	err     error
	dropped bool
	at      adapter.Position // of the last kept frame that was handed over
}

// A round confirms subscriptions. The adapter asks all hubs, itself included,
// to answer. When its own question comes back, everything that the
// server had for it before has come, and the server has the subscriptions.
// Hubs at other servers answer in the partitions that were subscribed: when an
// answer arrives, those servers know of the subscriptions, too.
type round struct {
	id         uint64
	began      time.Time
	partitions []int
	channels   []*channel
	missing    map[answer]bool
	seen       bool          // the question has come back
	notBefore  time.Time     // hubs that are not known yet may answer until then
	answered   chan struct{} // closed when nothing is missing
	settled    bool          // the keeper knows what the server did not permit
	vain       bool          // something failed: the next round waits a moment
	done       chan struct{} // closed when it is over, however it ended
}

type answer struct {
	id        numbers.ID
	partition int
}

// Subscribe implements adapter.Adapter.
func (a *Adapter) Subscribe(ctx context.Context, name string) error {
	c, ready, err := a.want(name)
	if err == nil && ready != nil {
		select {
		case <-ready:
			a.mu.Lock()
			err = c.err
			a.mu.Unlock()
		case <-ctx.Done():
			err = a.why(ctx)
			a.mu.Lock()
			if a.channels[name] == c {
				a.dropLocked(name)
			}
			a.mu.Unlock()
		}
	}
	if err != nil {
		return fmt.Errorf("nats: subscribe to %q: %w", name, err)
	}
	return nil
}

// want begins to subscribe a channel. It returns a channel that is closed when
// the subscription is live, or nil if it is live already.
func (a *Adapter) want(name string) (c *channel, ready chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return nil, nil, adapter.ErrClosed
	}
	c = a.channels[name]
	if c == nil {
		p := &a.partitions[partitionOf(name, a.o.Partitions)]
		c = &channel{name: name, in: p, ready: make(chan struct{})}
		a.channels[name], p.channels[name] = c, c
		a.pending[c] = struct{}{}
		signal(a.work)
	}
	if c.state == live {
		return c, nil, nil
	}
	return c, c.ready, nil
}

// Unsubscribe implements adapter.Adapter.
func (a *Adapter) Unsubscribe(_ context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropLocked(name)
	if a.o.Linger < 0 {
		signal(a.work)
	}
	return nil
}

// dropLocked ends a subscription, and waits for a call of the receiver that is
// running for it.
func (a *Adapter) dropLocked(name string) {
	c := a.channels[name]
	if c == nil {
		return
	}
	delete(a.channels, name)
	delete(c.in.channels, name)
	delete(a.pending, c)
	if len(c.in.channels) == 0 {
		c.in.empty = time.Now()
	}
	c.dropped = true
	if c.state == lost {
		a.unconfirmed--
	}
	if c.state != live {
		if c.err == nil {
			c.err = fmt.Errorf("the subscription was ended")
			if a.closing {
				c.err = adapter.ErrClosed
			}
		}
		close(c.ready)
	}
	for a.busy == c {
		a.idle.Wait()
	}
}

// keep is the keeper: it subscribes to partitions and ends their
// subscriptions, one round after the other.
func (a *Adapter) keep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-a.work:
		case <-tick.C:
		case <-a.life.Done():
			return
		}
		a.leaveIdle()
		for r := a.begin(); r != nil; r = a.begin() {
			if !a.attend(r) {
				return
			}
		}
	}
}

// attend waits for the end of a round. It reports false when the adapter is
// closed.
func (a *Adapter) attend(r *round) bool {
	select {
	case <-r.answered:
		if nc := a.connection(); nc != nil {
			a.out.settleDenials(nc)
		}
		a.mu.Lock()
		r.settled = true
		a.mu.Unlock()
		signal(a.changes)
	case <-r.done:
	case <-a.life.Done():
		return false
	}
	select {
	case <-r.done:
	case <-a.life.Done():
		return false
	}
	return !r.vain || backoff.Sleep(a.life, backoff.Max)
}

// begin begins a round, if there is a reason to.
func (a *Adapter) begin() *round {
	a.mu.Lock()
	nc := a.link.nc
	if nc == nil || !a.link.up || a.life.Err() != nil || a.link.met && len(a.pending) == 0 {
		a.mu.Unlock()
		return nil
	}
	a.rounds++
	r := &round{id: a.rounds, began: time.Now(), missing: make(map[answer]bool), answered: make(chan struct{}), done: make(chan struct{})}
	if r.id == 1 {
		r.notBefore = r.began.Add(discovery)
	}
	a.link.met = true
	var open []int
	for c := range a.pending {
		r.channels = append(r.channels, c)
	}
	for p := range a.partitions {
		if len(a.partitions[p].channels) == 0 || a.tracker.State(p) == numbers.Standing {
			continue
		}
		a.tracker.Set(p, numbers.Opening)
		r.partitions = append(r.partitions, p)
		if a.partitions[p].sub == nil {
			open = append(open, p)
		}
	}
	a.tracker.Peers(func(id numbers.ID) {
		for _, p := range r.partitions {
			if id != a.id {
				r.missing[answer{id, p}] = true
			}
		}
	})
	a.round = r
	synced := a.link.synced
	a.mu.Unlock()

	if err := a.open(nc, synced, open); err != nil {
		a.o.Logger.Warn("nats: subscribe", "error", err)
		a.mu.Lock()
		r.vain = true
		a.mu.Unlock()
	}
	a.out.put(&item{kind: kindAsk, ask: ask{id: a.id, round: r.id, partitions: r.partitions}})
	return r
}

// open subscribes to partitions. A partition that cannot be subscribed makes
// the round fail, and is tried again in the next one.
func (a *Adapter) open(nc *nats.Conn, synced bool, partitions []int) error {
	if !synced {
		if _, err := nc.ChanSubscribe(a.syncSubject(), a.inbox); err != nil {
			return err
		}
		a.mu.Lock()
		a.link.synced = a.link.nc == nc
		a.mu.Unlock()
	}
	for _, p := range partitions {
		sub, err := nc.ChanSubscribe(a.subject(p), a.inbox)
		if err != nil {
			return err
		}
		a.mu.Lock()
		if a.link.nc == nc {
			a.partitions[p].sub = sub
		}
		a.mu.Unlock()
	}
	return nil
}

// leaveIdle ends the subscriptions of partitions without channels.
func (a *Adapter) leaveIdle() {
	var subs []*nats.Subscription
	a.mu.Lock()
	for i := range a.partitions {
		p := &a.partitions[i]
		if p.sub != nil && len(p.channels) == 0 && time.Since(p.empty) > a.o.Linger {
			subs = append(subs, p.sub)
			p.sub = nil
			a.tracker.Set(i, numbers.Off)
		}
	}
	a.mu.Unlock()
	for _, sub := range subs {
		_ = sub.Unsubscribe() // if the connection is closed there is nothing to end
	}
}
