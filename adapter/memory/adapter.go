package memory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/closing"
	"github.com/fanoutgo/fanout/internal/wire"
)

// An Adapter joins one hub to a [Bus]. It is an [adapter.Adapter], and has the
// optional capabilities [adapter.AsyncPublisher], [adapter.Historian] and
// [adapter.HealthChecker]. The comments here say only what is particular to
// this adapter.
//
// All methods may be called concurrently. Unsubscribe and Close wait for the
// receiver, so the receiver's methods must not call them.
type Adapter struct {
	bus   *Bus
	inbox *inbox
	life  context.Context // ends when Close begins
	end   context.CancelFunc
	close *closing.Closing // entered under bus.mu while not closed, by calls that wait

	// Guarded by bus.mu.
	receiver      adapter.Receiver
	history       adapter.HistoryReceiver // the receiver, if it is one
	subscriptions map[string]*subscription
	link          link
	healed        chan struct{} // closed and replaced when the link is healed
	closed        bool
}

var (
	_ adapter.Adapter        = (*Adapter)(nil)
	_ adapter.AsyncPublisher = (*Adapter)(nil)
	_ adapter.Historian      = (*Adapter)(nil)
	_ adapter.HealthChecker  = (*Adapter)(nil)
)

// Attach starts the goroutine that calls r. Close waits for it.
func (a *Adapter) Attach(r adapter.Receiver) error {
	if r == nil {
		return errors.New("memory: attach: nil receiver")
	}
	a.bus.mu.Lock()
	defer a.bus.mu.Unlock()
	switch {
	case a.closed:
		return fmt.Errorf("memory: attach: %w", adapter.ErrClosed)
	case a.receiver != nil:
		return errors.New("memory: attach: the adapter has a receiver already")
	}
	a.receiver = r
	a.history, _ = r.(adapter.HistoryReceiver)
	a.close.Go(func() { a.inbox.deliver(r) })
	return nil
}

// Subscribe returns at once unless the link is cut; then it waits for Heal.
func (a *Adapter) Subscribe(ctx context.Context, channel string) error {
	for {
		healed, err := a.trySubscribe(ctx, channel)
		if err != nil {
			return fmt.Errorf("memory: subscribe to %q: %w", channel, err)
		}
		if healed == nil {
			return nil
		}
		select {
		case <-healed:
		case <-ctx.Done():
		case <-a.life.Done():
		}
		a.close.Leave()
	}
}

// trySubscribe subscribes if the link is up. If it is not, it returns a channel
// to wait for, and has registered the wait in calls.
func (a *Adapter) trySubscribe(ctx context.Context, channel string) (healed <-chan struct{}, err error) {
	b := a.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	s := a.subscriptions[channel]
	switch {
	case a.closed:
		return nil, adapter.ErrClosed
	case a.receiver == nil:
		return nil, errors.New("the adapter has no receiver yet")
	case ctx.Err() != nil:
		// The contract: then the channel is not subscribed, even if it was.
		if s != nil {
			b.removeLocked(s)
			a.inbox.endSubscription(s)
		}
		return nil, ctx.Err()
	case a.link != up:
		a.close.Enter()
		return a.healed, nil
	case s == nil:
		b.addLocked(&subscription{adapter: a, channel: channel})
	}
	return nil, nil
}

// Unsubscribe waits for a call of the receiver only if one for this channel is
// running. If ctx ends meanwhile it returns the error of ctx, and the receiver
// is not called for the channel again.
func (a *Adapter) Unsubscribe(ctx context.Context, channel string) error {
	a.bus.mu.Lock()
	if a.closed {
		a.bus.mu.Unlock()
		return fmt.Errorf("memory: unsubscribe from %q: %w", channel, adapter.ErrClosed)
	}
	var running <-chan struct{}
	if s := a.subscriptions[channel]; s != nil {
		a.bus.removeLocked(s)
		running = a.inbox.endSubscription(s)
	}
	a.bus.mu.Unlock()

	if running == nil {
		return nil
	}
	select {
	case <-running:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("memory: unsubscribe from %q: the receiver is still in a call: %w", channel, ctx.Err())
	}
}

// Publish puts the frame in the queues of all subscribers, and returns their
// number. It waits only for an interceptor. It works before Attach too, so a
// test can use an adapter without a hub to publish frames that no hub has made.
func (a *Adapter) Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	_, receivers, err = a.publish(ctx, channel, frame, nil)
	return receivers, err
}

// asyncTime bounds a PublishAsync. Only an interceptor can delay one.
const asyncTime = 2 * time.Second

// PublishAsync is Publish on a goroutine of its own.
func (a *Adapter) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	a.bus.mu.Lock()
	defer a.bus.mu.Unlock()
	if a.closed {
		return false
	}
	return a.close.Go(func() {
		ctx, cancel := context.WithTimeout(a.life, asyncTime)
		defer cancel()
		done.Complete(a.Publish(ctx, channel, frame))
	})
}

// publish is Publish, and Append if there is a record.
func (a *Adapter) publish(ctx context.Context, channel string, frame []byte, r *adapter.Record) (at adapter.Position, receivers int, err error) {
	var fate Fate
	if f := a.bus.interceptor.Load(); f != nil {
		fate, err = a.intercept(ctx, *f, Frame{From: a, Channel: channel, Data: frame})
	}
	if err == nil {
		at, receivers, err = a.send(ctx, channel, frame, fate, r)
	}
	if err != nil {
		return at, receivers, fmt.Errorf("memory: publish to %q: %w", channel, err)
	}
	return at, receivers, nil
}

// send publishes a frame whose fate is decided.
func (a *Adapter) send(ctx context.Context, channel string, frame []byte, fate Fate, r *adapter.Record) (at adapter.Position, n int, err error) {
	b := a.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case a.closed:
		return at, 0, adapter.Unsent(adapter.ErrClosed)
	case ctx.Err() != nil:
		return at, 0, adapter.Unsent(ctx.Err())
	case a.link == cut:
		return at, 0, adapter.Unsent(ErrCut)
	}
	fresh := true
	if r != nil && !fate.Refuse {
		var early bool
		at, fresh, early = b.history.Append(channel, r, time.Now())
		if early {
			b.sweepLocked()
		}
	}
	switch {
	case fate.Refuse:
	case !fresh:
		n = -1
	case fate.Drop:
	case b.drop > 0 && !wire.BetweenHubs(frame):
		b.drop--
	default:
		n = b.handOutLocked(channel, frame, fate, at)
	}
	if a.link == cutInbound {
		return at, 0, ErrCut
	}
	return at, n, fate.Err
}

// Health returns an error that wraps [ErrCut] while the link is cut, whether or
// not anything is subscribed, and one that wraps adapter.ErrClosed after Close.
func (a *Adapter) Health() error {
	a.bus.mu.Lock()
	defer a.bus.mu.Unlock()
	switch {
	case a.closed:
		return fmt.Errorf("memory: %w", adapter.ErrClosed)
	case a.link != up:
		return fmt.Errorf("memory: %d channels without a link: %w", len(a.subscriptions), ErrCut)
	}
	return nil
}

// Close waits for calls of the receiver and of interceptors that are running.
// Frames that are still queued are dropped.
func (a *Adapter) Close(ctx context.Context) error {
	a.bus.mu.Lock()
	a.shutLocked()
	a.bus.mu.Unlock()
	return a.close.Wait(ctx)
}

// shutLocked begins to close.
func (a *Adapter) shutLocked() {
	if a.closed {
		return
	}
	a.closed = true
	delete(a.bus.adapters, a)
	if len(a.bus.adapters) == 0 {
		a.bus.sweepLocked()
	}
	for _, s := range a.subscriptions {
		a.bus.removeLocked(s)
	}
	a.inbox.close()
	a.end()
	a.close.Begin(nil)
}
