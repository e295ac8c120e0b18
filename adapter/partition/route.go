package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/partition/internal/rollout"
)

var errUnattached = errors.New("the adapter has no receiver yet")

// A status is the status of a subscription.
type status uint8

const (
	sound status = iota
	moving
	interrupted
)

// A route is a channel that is subscribed, at one or more partitions.
type route struct {
	owner *Adapter
	name  string
	channel

	// mu guards all below, and is held while the receiver is called: so calls
	// for a channel never overlap.
	mu      sync.Mutex
	legs    []*leg
	up      bool          // the hub was told that it is subscribed
	told    status        // what the hub was told since
	over    bool          // it is unsubscribed
	changed chan struct{} // closed when anything above changes
	first   time.Time     // when the first leg was confirmed
	seen    copies
}

// A leg is a channel's subscription at one partition.
type leg struct {
	part        *part
	ctx         context.Context
	cancel      context.CancelFunc
	confirmed   bool
	status      status
	prospective bool  // nothing is published there yet
	optional    bool  // Subscribe does not wait for it
	refused     error // by the backend
}

// route returns the route of a channel; nil if it is not subscribed.
func (a *Adapter) route(channel string) *route {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.routes[channel]
}

// wideGrace is how long Subscribe waits for the other copies of a channel once
// it is subscribed at one partition.
const wideGrace = time.Second

// Subscribe subscribes at the channel's partition, and at its new one while it
// moves. If a channel is on several partitions, those that are down may be
// subscribed later.
func (a *Adapter) Subscribe(ctx context.Context, name string) error {
	err := a.subscribe(ctx, name)
	if err != nil {
		a.end(context.WithoutCancel(ctx), name, false)
		return fmt.Errorf("partition: subscribe to %q: %w", name, err)
	}
	return nil
}

func (a *Adapter) subscribe(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil && !a.isClosed() {
		return err
	}
	if err := a.awaitLearned(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return adapter.ErrClosed
	}
	r := a.routes[name]
	if r == nil {
		r = &route{owner: a, name: name, channel: parse(name), changed: make(chan struct{})}
		a.routes[name] = r
	}
	a.mu.Unlock()
	r.follow()
	return r.await(ctx)
}

func (a *Adapter) isClosed() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.closed
}

// awaitLearned waits until it is known which set is current.
func (a *Adapter) awaitLearned(ctx context.Context) error {
	for {
		a.mu.RLock()
		v, closed, attached := a.view, a.closed, a.receiver != nil
		a.mu.RUnlock()
		switch {
		case closed:
			return adapter.ErrClosed
		case !attached:
			return errUnattached
		case v.epoch > 0:
			return nil
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.ctx.Done():
			return adapter.ErrClosed
		}
	}
}

// await waits until the route is subscribed.
func (r *route) await(ctx context.Context) error {
	for {
		down := r.down()
		r.mu.Lock()
		ready, again, err := r.ready(down)
		if ready {
			r.up = true
			r.update()
		}
		changed := r.changed
		r.mu.Unlock()
		if ready || err != nil {
			return err
		}
		var late <-chan time.Time
		if again > 0 {
			late = time.After(again)
		}
		select {
		case <-changed:
		case <-late:
		case <-ctx.Done():
			return r.because(context.Cause(ctx))
		case <-r.owner.ctx.Done():
			return adapter.ErrClosed
		}
	}
}

// down returns the unhealthy partitions of the route, if its channel has
// copies.
func (r *route) down() (down []*part) {
	if !r.wide {
		return nil
	}
	r.mu.Lock()
	legs := slices.Clone(r.legs)
	r.mu.Unlock()
	for _, l := range legs {
		if l.part == nil || l.part.problem() != nil {
			down = append(down, l.part)
		}
	}
	return down
}

// because adds to an error the partitions that have not confirmed the
// subscription.
func (r *route) because(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.legs {
		switch {
		case l.part == nil:
			err = fmt.Errorf("%w (%w)", err, errMissing)
		case !l.confirmed:
			err = fmt.Errorf("%w (partition %q has not confirmed)", err, l.part.name)
		}
	}
	return err
}

// ready reports whether enough legs are subscribed. If they are not, again is
// when to look again, if that is not 0. The caller holds mu.
func (r *route) ready(down []*part) (ready bool, again time.Duration, err error) {
	confirmed, lacks, hope := 0, false, false
	for _, l := range r.legs {
		hope = hope || l.refused == nil && !l.prospective
		switch {
		case l.confirmed && !l.prospective:
			confirmed++
		case l.confirmed, l.optional, l.part == nil && l.prospective:
		case l.refused != nil:
			err = fmt.Errorf("partition %q: %w", l.part.name, l.refused)
		case !r.wide || !slices.Contains(down, l.part):
			lacks = true
		}
	}
	if r.wide && confirmed > 0 {
		again = wideGrace - time.Since(r.first)
		return !lacks || again <= 0, max(again, time.Millisecond), nil
	}
	if r.wide && hope {
		err = nil // one is enough
	}
	return err == nil && confirmed > 0 && !lacks, 0, err
}

// follow subscribes the channel on the partitions that the view names, and
// unsubscribes it from the others.
func (r *route) follow() {
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return
	}
	left, begun := r.relegs()
	// The turns are taken under mu, so that they are in the order of the views.
	leaving, beginning := r.takeTurns(left), r.takeTurns(begun)
	r.update()
	r.signal()
	r.mu.Unlock()
	r.beginAll(begun, beginning)
	for i, l := range left {
		r.leave(r.owner.ctx, l, leaving[i])
	}
}

// takeTurns asks for the turns of some legs.
func (r *route) takeTurns(legs []*leg) []chan struct{} {
	tickets := make([]chan struct{}, len(legs))
	for i, l := range legs {
		if l.part != nil {
			tickets[i] = l.part.take(r.name)
		}
	}
	return tickets
}

// relegs makes the legs those of the view. The caller holds mu.
func (r *route) relegs() (left, begun []*leg) {
	a := r.owner
	a.mu.RLock()
	v := a.view
	names := v.listens(r.channel, a.opts.Copies)
	parts := make([]*part, len(names))
	for i, name := range names {
		parts[i] = a.parts[name]
	}
	a.mu.RUnlock()
	var legs []*leg
	for _, l := range r.legs {
		if slices.Contains(parts, l.part) {
			legs = append(legs, l)
		} else {
			left = append(left, l)
		}
	}
	for i, p := range parts {
		at := slices.IndexFunc(legs, func(l *leg) bool { return l.part == p })
		if at < 0 {
			l := &leg{part: p}
			l.ctx, l.cancel = context.WithCancel(a.ctx)
			legs, at = append(legs, l), len(legs)
			if p != nil {
				begun = append(begun, l)
			}
		}
		legs[at].prospective = v.prospective(r.channel, a.opts.Copies, names[i])
		legs[at].optional = legs[at].prospective && v.stage == rollout.Opening
	}
	r.legs = legs
	return left, begun
}

// settled reports whether the route is subscribed at its new home, if it moves.
func (r *route) settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over || !slices.ContainsFunc(r.legs, func(l *leg) bool {
		return l.prospective && !l.confirmed && l.part != nil
	})
}

// beginAll subscribes legs in the background.
func (r *route) beginAll(legs []*leg, tickets []chan struct{}) {
	for i, l := range legs {
		if !r.owner.goIfOpen(func() { r.begin(l, tickets[i]) }) {
			l.part.give(r.name, tickets[i])
		}
	}
}

// Unsubscribe ends the subscription at all partitions.
func (a *Adapter) Unsubscribe(ctx context.Context, name string) error {
	if a.isClosed() {
		return fmt.Errorf("partition: unsubscribe from %q: %w", name, adapter.ErrClosed)
	}
	if err := a.end(ctx, name, true); err != nil {
		return fmt.Errorf("partition: unsubscribe from %q: %w", name, err)
	}
	return nil
}

// end ends a route. With wait, it waits for the partitions until ctx ends.
func (a *Adapter) end(ctx context.Context, name string, wait bool) error {
	a.mu.Lock()
	r := a.routes[name]
	delete(a.routes, name)
	a.mu.Unlock()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	r.over = true
	legs := r.legs
	tickets := r.takeTurns(legs)
	r.mu.Unlock()
	var errs []error
	for i, l := range legs {
		done := r.leave(ctx, l, tickets[i])
		if !wait || done == nil {
			continue
		}
		select {
		case err := <-done:
			errs = append(errs, err)
		case <-ctx.Done():
			errs = append(errs, context.Cause(ctx))
		}
	}
	return errors.Join(errs...)
}

// leave unsubscribes a leg in the background, when it is its turn, and returns
// a channel that gets the outcome; nil if there is nothing to wait for.
func (r *route) leave(ctx context.Context, l *leg, ticket chan struct{}) <-chan error {
	l.cancel()
	if l.part == nil {
		return nil
	}
	done := make(chan error, 1)
	if !r.owner.goIfOpen(func() {
		<-ticket
		defer l.part.give(r.name, ticket)
		done <- l.part.adapter.Unsubscribe(ctx, r.name)
	}) {
		l.part.give(r.name, ticket)
		return nil
	}
	return done
}
