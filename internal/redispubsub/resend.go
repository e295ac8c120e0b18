package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
)

// This file handles frames that a node accepted and that reached no subscriber,
// although there should be some.

// sub returns our own subscription to a channel; nil if there is none.
func (e *Engine) sub(channel string) *sub {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.subs[channel]
}

// nobody is called when a node says that a frame reached no subscriber. It
// sends the frame again if there should be some, and returns the number of
// receivers.
func (e *Engine) nobody(ctx context.Context, channel, at string, frame []byte) (int, error) {
	s := e.sub(channel)
	switch {
	case s == nil && e.mode.zeroNeedsPrimary():
		return e.resend(ctx, channel, at, frame)
	case s == nil:
		return 0, nil
	case e.reachesHome(s, at):
	case e.mode.onlyHomeHears():
		e.topology.refreshTable() // it lags behind our own subscription
	default:
		return 0, nil
	}
	return e.resubscribeAndResend(ctx, s, frame)
}

// certain reports whether a frame that a node has accepted, with n subscribers,
// need not be sent again. Where subscribers at replicas are not counted it
// never is. But if our own subscription is not where the frame went, one of the
// two is in the wrong place; and if it is at that primary, it is counted there.
func (e *Engine) certain(channel, at string, n int) bool {
	if !e.uncounted(channel) {
		return n > 0
	}
	s := e.sub(channel)
	switch home, on, _ := s.state(); {
	case !on || home == nil:
	case !e.reachesHome(s, at):
		e.topology.refreshTable()
		e.topology.verifyLater(home)
	case n == 0 && home.primary == "":
		e.resubscribeSoon(s)
	}
	return true
}

// reachesHome reports whether the reply to a frame that was sent to a node
// counts the subscribers of the sub's home.
func (e *Engine) reachesHome(s *sub, at string) bool {
	if at == "" {
		return true
	}
	home, _, _ := s.state()
	return home == nil || home.owner() == at
}

// again removes ErrUnsent from the error of a repeated frame: a node has
// accepted the frame before, so it may have arrived.
func (e *Engine) again(err error) error {
	if err = e.classify("publish again", err); errors.Is(err, adapter.ErrRefused) {
		return fmt.Errorf("%w: %v", adapter.ErrRefused, err)
	}
	return errors.New(err.Error())
}

// resend is called when a frame reached no subscriber and we are not subscribed
// ourselves. Either there is no subscriber, or the node that accepted the frame
// has become a replica, which accepts messages in its primary's slots without
// an error. In that case resend sends the frame to the primary. (Hubs that
// received the first one recognise the second.)
func (e *Engine) resend(ctx context.Context, channel, at string, frame []byte) (n int, err error) {
	var pause backoff.Backoff
	for {
		primary := false
		if node := e.topology.client(at); node != nil {
			primary, err = e.roles.primary(ctx, at, node)
		}
		if primary {
			return 0, nil
		}
		e.topology.refreshTable()
		e.inspector.inspectSoon(at)
		if !e.sleep(ctx, pause.Next()) {
			if e.ctx.Err() != nil {
				return 0, e.errClosed()
			}
			return 0, fmt.Errorf("%s: nobody received what was published to %s, by a node that is no primary: %w",
				e.cfg.Name, channel, errors.Join(context.Cause(ctx), err))
		}
		n, at, err = e.send(ctx, channel, frame)
		if err != nil && !errors.Is(err, errReplica) { // which means that it was not sent
			return 0, e.again(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// resubscribeAndResend is called when a frame reached no subscriber although we
// are subscribed: so our subscription is broken. It waits until the
// subscription is confirmed again, and sends the frame again. (Subscribers of a
// replica may have received the first one; hubs recognise the second.)
func (e *Engine) resubscribeAndResend(ctx context.Context, s *sub, frame []byte) (int, error) {
	var pause backoff.Backoff
	_, _, confirms := s.state()
	for {
		e.resubscribe(s, confirms)
		if err := s.await(ctx, confirms); err != nil {
			if !s.isWanted() {
				return 0, nil // it was unsubscribed meanwhile, so the count is right
			}
			return 0, fmt.Errorf("%s: nobody received the message, and the subscription is not confirmed again: %w", e.cfg.Name, err)
		}
		_, _, confirms = s.state()
		n, _, err := e.send(ctx, s.channel, frame)
		if err != nil && !errors.Is(err, errReplica) { // which means that it was not sent
			return 0, e.again(err)
		}
		if n > 0 {
			return n, nil
		}
		if !e.sleep(ctx, pause.Next()) {
			if e.ctx.Err() != nil {
				return 0, e.errClosed()
			}
			return 0, fmt.Errorf("%s: nobody receives what is published to %s: %w", e.cfg.Name, s.channel, context.Cause(ctx))
		}
	}
}

// resubscribe makes the home confirm a subscription again, unless the
// subscription is lost or the number of its confirmations is no longer
// confirms. It checks everything that may be wrong with the home.
func (e *Engine) resubscribe(s *sub, confirms uint32) {
	if home, on, now := s.state(); on && now == confirms && home != nil {
		home.resubscribe(s)
		e.topology.verifyLater(home)
		e.inspector.inspectSoon(home.addr)
	}
}

// resubscribeSoon makes the home confirm our own subscription again, after a
// frame that is not sent again reached no subscriber. If the frame is kept the
// receiver then reads it from the history. Most likely the slot is moving, and
// the old home is about to say so: it gets moveGrace for that.
func (e *Engine) resubscribeSoon(s *sub) {
	home, on, confirms := s.state()
	if !on || home == nil || home.primary != "" || !e.mode.countsAll() || !s.resubscribing.CompareAndSwap(false, true) {
		return
	}
	e.wg.Go(func() {
		defer s.resubscribing.Store(false)
		if !backoff.Sleep(e.ctx, moveGrace) {
			return
		}
		if l, _, _ := s.state(); l == home {
			e.resubscribe(s, confirms)
		}
	})
}

// sleep reports false if the context or the engine has ended before d is over.
func (e *Engine) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-e.ctx.Done():
	}
	return false
}
