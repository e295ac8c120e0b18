package migrate

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/flip"
)

// enter waits until the hub may publish, and says to which backend. The caller
// calls leave when its call of the backend has ended.
func (a *Adapter) enter(ctx context.Context) (old bool, err error) {
	if a.flipped.Load() && a.life.Err() == nil {
		return false, nil
	}
	for {
		a.mu.Lock()
		old, ok := a.tryLocked()
		changed, closed := a.changed, a.closed
		a.mu.Unlock()
		switch {
		case closed:
			return false, adapter.Unsent(adapter.ErrClosed)
		case ok:
			return old, nil
		}
		select {
		case <-changed:
		case <-a.life.Done():
		case <-ctx.Done():
			return false, adapter.Unsent(fmt.Errorf("%w (%s)", context.Cause(ctx), a.Status().Waiting))
		}
	}
}

func (a *Adapter) tryLocked() (old, ok bool) {
	switch {
	case a.closed:
		return false, false
	case a.phase == flip.Both:
		a.inflight++
		return true, true
	}
	return false, a.phase == flip.Flipped
}

// leave ends what enter has begun.
func (a *Adapter) leave(old bool) {
	if !old {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inflight--; a.inflight == 0 && a.phase == flip.Pausing {
		a.wake()
	}
}

// side returns a backend.
func (a *Adapter) side(old bool) *side {
	if old {
		return &a.from
	}
	return &a.to
}

// Publish publishes to the old backend, or to the new one if the hubs have
// flipped. While that is not known, or about to change, it waits.
func (a *Adapter) Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	old, err := a.enter(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate: publish to %q: %w", channel, err)
	}
	defer a.leave(old)
	if old && channel == a.everyone {
		a.noteHub(frame)
		select {
		case a.prober <- struct{}{}:
			defer func() { <-a.prober }()
		case <-ctx.Done():
			return 0, fmt.Errorf("migrate: publish to %q: %w", channel, adapter.Unsent(context.Cause(ctx)))
		}
	}
	return a.side(old).Publish(ctx, channel, frame)
}

// PublishAsync returns false if the backend does not have it, or while Publish
// would wait.
func (a *Adapter) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	a.mu.Lock()
	old, ok := a.tryLocked()
	a.mu.Unlock()
	switch {
	case !ok:
		return false
	case !old:
		return a.to.async != nil && a.to.async.PublishAsync(channel, frame, done)
	}
	if a.from.async != nil && channel != a.everyone && a.from.async.PublishAsync(channel, frame, &completion{a, done}) {
		return true
	}
	a.leave(true)
	return false
}

// A completion leaves when it is called.
type completion struct {
	adapter *Adapter
	done    adapter.Completion
}

func (c *completion) Complete(receivers int, err error) {
	c.adapter.leave(true)
	c.done.Complete(receivers, err)
}

// noteHub notes the hub that publishes through this adapter. A hub says hello
// to everyone early enough not to be taken for one that does not take part.
func (a *Adapter) noteHub(frame []byte) {
	hub, ok := hubOf(frame)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hub != hub {
		a.hub = hub
		a.node.Known(hub)
	}
}

// hubOf returns the hub that has made a frame or notice.
func hubOf(frame []byte) (hub uint64, ok bool) {
	if len(frame) < noticeLen || [3]byte(frame) != magic {
		return 0, false
	}
	return binary.BigEndian.Uint64(frame[6:]), true
}
