package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/flip"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/lane"
	"github.com/fanoutgo/fanout/internal/backoff"
)

// A channel is a subscription of the hub's.
type channel struct {
	name  string
	onOld bool                              // it was subscribed at the old backend
	keep  atomic.Pointer[adapter.Retention] // of its history; nil: not known, or there is none

	// The subscription at the new backend while the hubs have not flipped:
	// cancel ends it, and quit is closed when it has ended.
	cancel context.CancelFunc
	quit   chan struct{} // nil: it was not begun

	// mu guards what follows. It is held while the receiver is called, so that
	// calls for the channel do not overlap.
	mu    sync.Mutex
	lane  lane.Lane
	calls []lane.Call // scratch
	gone  bool
}

// Subscribe returns when the channel is subscribed at the backend that the hubs
// publish to. Before they have flipped, the channel is subscribed at the new
// one in the background.
func (a *Adapter) Subscribe(ctx context.Context, name string) error {
	old, err := a.enter(ctx)
	if err != nil {
		if !errors.Is(err, adapter.ErrClosed) {
			_ = a.leaveChannel(ctx, name) // the contract: then it is not subscribed
		}
		return fmt.Errorf("migrate: subscribe to %q: %w", name, err)
	}
	c, old := a.channel(name, old)
	if old {
		err = a.from.Subscribe(ctx, name)
		a.leave(true)
	}
	if err == nil && (!old || a.flipped.Load()) {
		err = a.to.Subscribe(ctx, name)
	}
	if err != nil {
		_ = a.leaveChannel(ctx, name)
		return err
	}
	if old {
		a.follow(c)
	}
	return nil
}

// channel returns the hub's channel of a name, and makes it if there is none.
// If the hubs have flipped since the caller entered at the old backend, channel
// calls leave, and stillOld is false: a lane that is made after the flip is not
// told of the flip.
func (a *Adapter) channel(name string, old bool) (_ *channel, stillOld bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old && a.phase == flip.Flipped {
		a.inflight--
		old = false
	}
	c := a.channels[name]
	if c == nil {
		c = &channel{name: name}
		if !old {
			c.lane.Begin()
		}
		a.channels[name] = c
	}
	if old {
		c.onOld = true
		if c.quit == nil {
			a.pending[c] = time.Now()
		}
	}
	return c, old
}

// follow begins to subscribe a channel at the new backend, unless it has begun
// before.
func (a *Adapter) follow(c *channel) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.quit != nil || a.closed {
		return
	}
	ctx, cancel := context.WithCancel(a.life)
	c.cancel, c.quit = cancel, make(chan struct{})
	a.start(func() {
		defer close(c.quit)
		defer cancel()
		if a.subscribeNew(ctx, c.name) {
			a.mu.Lock()
			delete(a.pending, c)
			a.mu.Unlock()
			a.wake()
		}
	})
}

// refusedPause is how long to wait after a subscription was refused.
const refusedPause = 5 * time.Second

// subscribeNew subscribes at the new backend, for as long as that takes.
func (a *Adapter) subscribeNew(ctx context.Context, name string) bool {
	for {
		err := a.to.Subscribe(ctx, name)
		if err == nil {
			return true
		}
		if ctx.Err() != nil || errors.Is(err, adapter.ErrClosed) {
			return false
		}
		a.log.Warn("migrate: the new backend does not let this hub subscribe", "channel", name, "error", err)
		backoff.Sleep(ctx, refusedPause)
	}
}

// Unsubscribe ends the subscription at both backends.
func (a *Adapter) Unsubscribe(ctx context.Context, name string) error {
	a.mu.RLock()
	closed := a.closed
	a.mu.RUnlock()
	if closed {
		return fmt.Errorf("migrate: unsubscribe from %q: %w", name, adapter.ErrClosed)
	}
	return a.leaveChannel(ctx, name)
}

// leaveChannel ends a subscription, if there is one. The subscriptions at both
// backends end in any case.
func (a *Adapter) leaveChannel(ctx context.Context, name string) error {
	a.mu.Lock()
	c := a.channels[name]
	delete(a.channels, name)
	if c != nil {
		delete(a.pending, c)
		a.keepGoneLocked(c)
	}
	a.mu.Unlock()
	if c == nil {
		return nil
	}
	if c.quit != nil {
		c.cancel()
		<-c.quit // a Subscribe whose context has ended returns
	}
	var errOld, errNew error
	var both sync.WaitGroup
	if c.onOld {
		both.Go(func() { errOld = a.from.Unsubscribe(ctx, name) })
	}
	both.Go(func() { errNew = a.to.Unsubscribe(ctx, name) })
	both.Wait()
	c.mu.Lock()
	c.gone = true
	a.addDown(-c.down())
	c.mu.Unlock()
	return errors.Join(errOld, errNew)
}

// addDown counts a channel that is interrupted at the new backend, or no
// longer.
func (a *Adapter) addDown(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.newDown += n
}
