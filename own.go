package fanout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/locks"
)

const (
	// ownRetry is the longest pause between attempts to subscribe to the hub's
	// own channels after the backend has refused.
	ownRetry = 500 * time.Millisecond
	// refusalAge is how long a refusal is still reported while the next attempt
	// waits for the backend.
	refusalAge = time.Second
)

// ownChannels is the state of the channels that every hub subscribes to: its
// inbox, and that of messages to everyone.
type ownChannels struct {
	ready chan struct{} // closed once both are subscribed

	mu      locks.Mutex[locks.Innermost] // guards all below
	err     error                        // of the last attempt; nil: it is under way, or has succeeded
	changed chan struct{}                // closed when err changes or the channels are ready
}

func newOwnChannels() *ownChannels {
	return &ownChannels{ready: make(chan struct{}), changed: make(chan struct{})}
}

func (o *ownChannels) isReady() bool {
	select {
	case <-o.ready:
		return true
	default:
		return false
	}
}

// last returns what is closed when there is news, and the error of the last
// attempt.
func (o *ownChannels) last() (<-chan struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed, o.err
}

// set notes how an attempt has ended.
func (o *ownChannels) set(err error, ready bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isReady() {
		return
	}
	o.err = err
	close(o.changed)
	if ready {
		close(o.ready) // and changed stays closed
		return
	}
	o.changed = make(chan struct{})
}

// subscribeOwn subscribes to the channels that every hub listens to. What the
// backend refuses is tried again, as long as the hub lives: rights may be
// granted later.
func (h *Hub) subscribeOwn() {
	var said occasionally
	failed := false
	for delay := firstRetry; ; delay = min(2*delay, ownRetry) {
		err := h.trySubscribeOwn()
		switch {
		case h.ctx.Err() != nil:
			return
		case err == nil:
			h.own.set(nil, true)
			if failed {
				h.log.Info("fanout: hub's own channels are subscribed now", "hub", h.id)
			}
			return
		}
		failed = true
		h.own.set(err, false)
		if said.first() {
			h.log.Error("fanout: hub gets no direct messages and none to everyone, and nobody can join; it tries again (said once a minute)",
				"hub", h.id, "error", err)
		}
		if errors.Is(err, ErrClosed) {
			return // there is no adapter any more
		}
		sleep(h.ctx, delay)
	}
}

// trySubscribeOwn subscribes to both channels, or returns the first error.
func (h *Hub) trySubscribeOwn() error {
	outdated := time.AfterFunc(refusalAge, func() { h.own.set(nil, false) })
	defer outdated.Stop()
	for _, channel := range []string{h.inbox.channel, h.everyone.channel} {
		if err := h.adapter.Subscribe(h.ctx, channel); err != nil {
			return fmt.Errorf("hub's own channel %s: %w", channel, err)
		}
	}
	return nil
}

// awaitOwn waits until the hub's own channels are subscribed. It ends earlier
// with ctx, with the hub, when the backend refuses, and, for a membership (nil:
// there is none), when its member ends or has left.
func (h *Hub) awaitOwn(ctx context.Context, ms *membership) error {
	for !h.own.isReady() {
		changed, last := h.own.last()
		if errors.Is(last, ErrRefused) || errors.Is(last, ErrClosed) {
			return last
		}
		var err error
		if ms != nil {
			var over bool
			if over, err = ms.awaitChange(ctx, changed); over {
				return nil // see roomState.await
			}
		} else {
			select {
			case <-changed:
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-h.closing:
				err = ErrClosed
			}
		}
		if err != nil && last != nil {
			err = fmt.Errorf("%w (last: %v)", err, last)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// explain adds to an error that comes from the end of ctx what the adapter knows
// of its links. It is text only: errors.Is finds what it found before.
func (h *Hub) explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || !errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return h.withHealth(err)
}

// withHealth is explain for an error that says itself that the time was over.
func (h *Hub) withHealth(err error) error {
	hc, ok := h.adapter.(adapter.HealthChecker)
	if !ok || errors.Is(err, ErrClosed) {
		return err
	}
	if why := hc.Health(); why != nil && !strings.Contains(err.Error(), why.Error()) {
		return fmt.Errorf("%w (adapter: %v)", err, why)
	}
	return err
}
