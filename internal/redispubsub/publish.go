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
	e.mu.RLock()
	closing, s := e.closing, e.subs[channel]
	e.mu.RUnlock()
	if closing {
		return 0, fmt.Errorf("%w: %w", e.errClosed(), fanout.ErrUnsent)
	}
	if ctx.Err() != nil {
		return 0, fmt.Errorf("%w: %w", context.Cause(ctx), fanout.ErrUnsent)
	}
	var confirms int
	if s != nil {
		_, _, confirms = s.state()
	}
	n, at, err := e.send(ctx, channel, frame)
	if err != nil {
		return 0, e.classify(err)
	}
	if n == 0 && s != nil && e.reachesHome(s, at) {
		if n, err = e.mend(ctx, s, confirms, frame); err != nil {
			return 0, err
		}
	}
	if e.cluster && !e.cfg.Sharded {
		return -1, nil // it counts the subscribers of one node
	}
	return n, nil
}

// send sends a frame once. at is the node, where that is ours to choose.
func (e *Engine) send(ctx context.Context, channel string, frame []byte) (n int, at string, err error) {
	message := rueidis.BinaryString(frame)
	var result rueidis.RedisResult
	switch {
	case e.cfg.Sharded:
		result = e.client.Do(ctx, e.client.B().Spublish().Channel(channel).Message(message).Build())
	case e.cluster:
		// PUBLISH would be heard from any node, but only those who publish and
		// subscribe at the same node see one order.
		var node rueidis.Client
		if node, at, err = e.topology.node(ctx, e.slot(channel)); err != nil {
			return 0, "", err
		}
		result = node.Do(ctx, node.B().Publish().Channel(channel).Message(message).Build())
		if result.NonRedisError() != nil {
			e.topology.distrust()
		}
	default:
		result = e.client.Do(ctx, e.client.B().Publish().Channel(channel).Message(message).Build())
	}
	count, err := result.AsInt64()
	return int(count), at, err
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

// mend is called when nobody got a frame although we are subscribed: then we
// are not. It has the subscription confirmed again, and sends the frame again.
// Nobody got the first, so nobody gets it twice.
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
		n, _, err := e.send(ctx, s.channel, frame)
		if err != nil {
			return 0, e.classify(err)
		}
		if n > 0 {
			return n, nil
		}
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, fmt.Errorf("%s: nobody receives what is published to %s: %w", e.cfg.Name, s.channel, context.Cause(ctx))
		}
		delay = min(2*delay, lastRetry)
	}
}

// classify tells the hub what it may conclude from an error of publishing.
func (e *Engine) classify(err error) error {
	if _, ok := rueidis.IsRedisErr(err); ok {
		if temporary(err) {
			return fmt.Errorf("%s: publish: %w: %w", e.cfg.Name, fanout.ErrUnsent, err)
		}
		return fmt.Errorf("%s: publish: %w: %w: %w", e.cfg.Name, fanout.ErrRefused, fanout.ErrUnsent, err)
	}
	var op *net.OpError
	switch {
	case errors.Is(err, rueidis.ErrClosing):
		return fmt.Errorf("%s: publish: the client is closed: %w: %w: %w", e.cfg.Name, fanout.ErrRefused, fanout.ErrUnsent, err)
	case errors.Is(err, rueidis.ErrNoSlot), errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("%s: publish: %w: %w", e.cfg.Name, fanout.ErrUnsent, err)
	}
	return fmt.Errorf("%s: publish: %w", e.cfg.Name, err)
}
