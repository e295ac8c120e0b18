package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/redis/rueidis"
)

// Publish implements fanout.Adapter.
func (e *Engine) Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	s, done, err := e.enter(ctx, channel)
	if err != nil {
		return 0, err
	}
	defer done()
	_, _, confirms := s.state()
	n, at, err := e.send(ctx, channel, s, frame)
	if err != nil {
		return 0, e.classify("publish", err)
	}
	switch {
	case n > 0:
	case s == nil && e.cluster && e.cfg.Sharded:
		n, err = e.insist(ctx, channel, at, frame)
	case s != nil && e.reachesHome(s, at):
		n, err = e.mend(ctx, s, confirms, frame)
	}
	if err != nil {
		return 0, err
	}
	if e.cluster && !e.cfg.Sharded {
		return -1, nil // it counts the subscribers of one node
	}
	return n, nil
}

// enter begins an operation that Close waits for, until done is called. s is our
// own subscription to the channel, nil if there is none.
func (e *Engine) enter(ctx context.Context, channel string) (s *sub, done func(), err error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	switch {
	case e.closing:
		return nil, nil, fmt.Errorf("%w: %w", e.errClosed(), fanout.ErrUnsent)
	case ctx.Err() != nil:
		return nil, nil, fmt.Errorf("%w: %w", context.Cause(ctx), fanout.ErrUnsent)
	}
	e.wg.Add(1)
	return e.subs[channel], e.wg.Done, nil
}

// send sends a frame once. s is our own subscription to the channel, if there is
// one. at is the node it went to, if it was we who chose it.
func (e *Engine) send(ctx context.Context, channel string, s *sub, frame []byte) (n int, at string, err error) {
	ctx, cancel := e.bound(ctx)
	defer cancel()
	message := rueidis.BinaryString(frame)
	var result rueidis.RedisResult
	switch {
	case e.cfg.Sharded:
		result, at = e.route(ctx, channel, s, func(b rueidis.Builder) rueidis.Completed {
			return b.Spublish().Channel(channel).Message(message).Build()
		})
	case e.cluster:
		// PUBLISH would be heard from any node, but only those who publish and
		// subscribe at the same node see one order.
		var node rueidis.Client
		if node, at, err = e.topology.node(ctx, channel); err != nil {
			return 0, "", err
		}
		result = node.Do(ctx, node.B().Publish().Channel(channel).Message(message).Build())
		if errors.Is(result.Error(), rueidis.ErrClosing) { // the node has left the cluster
			e.topology.distrust()
			return 0, at, rueidis.ErrNoSlot
		}
	default:
		result = e.client.Do(ctx, e.client.B().Publish().Channel(channel).Message(message).Build())
	}
	if result.NonRedisError() != nil {
		e.topology.distrust()
	}
	count, err := result.AsInt64()
	return int(count), at, err
}

// route sends a command to where a channel lives as we know it: the home of our
// own subscription, which follows the slot at once, or what the topology says.
// The client would go on for seconds to ask a node that is silent, or that the
// slot has left. Where we know nothing better, and when we are wrong, the client
// finds the way, and at is "".
func (e *Engine) route(ctx context.Context, channel string, s *sub, build func(rueidis.Builder) rueidis.Completed) (_ rueidis.RedisResult, at string) {
	if home, on, _ := s.state(); on && home != nil {
		at = home.addr
	} else if e.cluster {
		at = e.topology.owner(e.slot(channel))
	}
	if node := e.topology.client(at); node != nil {
		result := node.Do(ctx, build(node.B()))
		err := result.Error()
		if re, ok := rueidis.IsRedisErr(err); !(ok && redirects(re)) && !errors.Is(err, rueidis.ErrClosing) {
			return result, at
		}
		// The slot has left the node, or the node the cluster: the client knows.
		e.topology.distrust()
	}
	return e.client.Do(ctx, build(e.client.B())), ""
}

func redirects(err *rueidis.RedisError) bool {
	_, moved := err.IsMoved()
	_, ask := err.IsAsk()
	return moved || ask
}

// bound limits one attempt, so that a server that is silent is given up (what
// the next attempt asks may be another), and so that Close need not wait.
func (e *Engine) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(ctx, e.cfg.ProbeTimeout, fmt.Errorf("%w within %v", errSilent, e.cfg.ProbeTimeout))
	stop := context.AfterFunc(e.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// reachesHome reports whether what was sent to a node counts the subscribers of
// the sub's home.
func (e *Engine) reachesHome(s *sub, at string) bool {
	if at == "" {
		return true
	}
	home, _, _ := s.state()
	return home == nil || home.addr == at
}

// insist is called when nobody got a frame and we are not subscribed ourselves:
// so it is, or the node that took it has become a replica, which takes what is
// published in its primary's slots without a word. Then it is sent again, to the
// primary. (Hubs that got it nevertheless recognise it.)
func (e *Engine) insist(ctx context.Context, channel, at string, frame []byte) (n int, err error) {
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		primary := false
		if node := e.topology.client(at); node != nil {
			primary, err = e.roles.primary(ctx, at, node)
		}
		if primary {
			return 0, nil
		}
		e.topology.distrust()
		if !e.sleep(ctx, delay) {
			if e.ctx.Err() != nil {
				return 0, e.errClosed()
			}
			return 0, fmt.Errorf("%s: nobody received what was published to %s, by a node that is no primary: %w",
				e.cfg.Name, channel, errors.Join(context.Cause(ctx), err))
		}
		if n, at, err = e.send(ctx, channel, nil, frame); err != nil {
			return 0, e.classify("publish", err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// sleep reports false if the context or the engine has ended first.
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

// mend is called when nobody got a frame although we are subscribed: then we
// are not. It has the subscription confirmed again, and sends the frame again.
// (Subscribers of a replica may have got the first; hubs recognise the second.)
func (e *Engine) mend(ctx context.Context, s *sub, confirms int, frame []byte) (int, error) {
	delay := firstRetry
	for {
		home, on, now := s.state()
		if on && now == confirms && home != nil {
			home.doubt(s)
			e.topology.doubt(home)
		}
		if err := s.await(ctx, confirms); err != nil {
			s.mu.Lock()
			wanted := s.wanted
			s.mu.Unlock()
			if !wanted {
				return 0, nil // unsubscribed meanwhile: nobody it is
			}
			return 0, fmt.Errorf("%s: nobody received the message, and the subscription is not confirmed again: %w", e.cfg.Name, err)
		}
		_, _, confirms = s.state()
		n, _, err := e.send(ctx, s.channel, s, frame)
		if err != nil {
			return 0, e.classify("publish", err)
		}
		if n > 0 {
			return n, nil
		}
		if !e.sleep(ctx, delay) {
			if e.ctx.Err() != nil {
				return 0, e.errClosed()
			}
			return 0, fmt.Errorf("%s: nobody receives what is published to %s: %w", e.cfg.Name, s.channel, context.Cause(ctx))
		}
		delay = min(2*delay, lastRetry)
	}
}

// redisError returns the server's own answer that an error is, or wraps; nil if
// there is none.
func redisError(err error) *rueidis.RedisError {
	var re *rueidis.RedisError
	errors.As(err, &re)
	return re
}

// classify tells the hub what it may conclude from an error.
func (e *Engine) classify(what string, err error) error {
	if re := redisError(err); re != nil {
		if temporary(re) {
			return fmt.Errorf("%s: %s: %w: %w", e.cfg.Name, what, fanout.ErrUnsent, err)
		}
		return fmt.Errorf("%s: %s: %w: %w: %w", e.cfg.Name, what, fanout.ErrRefused, fanout.ErrUnsent, err)
	}
	var op *net.OpError
	switch {
	case errors.Is(err, rueidis.ErrClosing):
		return fmt.Errorf("%s: %s: the client is closed: %w: %w: %w", e.cfg.Name, what, fanout.ErrRefused, fanout.ErrUnsent, err)
	case errors.Is(err, rueidis.ErrNoSlot), errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("%s: %s: %w: %w", e.cfg.Name, what, fanout.ErrUnsent, err)
	}
	return fmt.Errorf("%s: %s: %w", e.cfg.Name, what, err)
}
