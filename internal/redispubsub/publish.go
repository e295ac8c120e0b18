package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/redis/rueidis"
)

// Publish implements fanout.Adapter.
func (e *Engine) Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	if err := e.enter(ctx); err != nil {
		return 0, err
	}
	defer e.ops.Leave(1)
	if err := e.checkLength(ctx, len(frame)); err != nil {
		return 0, err
	}
	n, at, err := e.send(ctx, channel, frame)
	return e.conclude(ctx, channel, frame, n, at, err)
}

// conclude looks after a frame that was sent once, to a number of subscribers of a
// node, and returns what Publish does.
func (e *Engine) conclude(ctx context.Context, channel string, frame []byte, n int, at string, err error) (receivers int, _ error) {
	if err != nil {
		return 0, e.classify("publish", err)
	}
	if n == 0 {
		if n, err = e.nobody(ctx, channel, at, frame); err != nil {
			return 0, err
		}
	}
	return e.mode.receivers(n), nil
}

// enter begins an operation that Close waits for, until e.ops.Leave.
func (e *Engine) enter(ctx context.Context) error {
	if !e.ops.Enter(1) {
		return fmt.Errorf("%w: %w", e.errClosed(), fanout.ErrUnsent)
	}
	if ctx.Err() != nil {
		e.ops.Leave(1)
		return fmt.Errorf("%w: %w", context.Cause(ctx), fanout.ErrUnsent)
	}
	return nil
}

// sub returns our own subscription to a channel; nil if there is none.
func (e *Engine) sub(channel string) *sub {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.subs[channel]
}

// nobody is called when a node has told that nobody got a frame. It sends it again
// where that should not be so.
func (e *Engine) nobody(ctx context.Context, channel, at string, frame []byte) (int, error) {
	s := e.sub(channel)
	switch {
	case s == nil && e.mode.zeroNeedsPrimary():
		return e.insist(ctx, channel, at, frame)
	case s == nil:
		return 0, nil
	case e.mode.onlyHomeHears() && !e.reachesHome(s, at):
		e.topology.distrust() // our table lags behind our own subscription
	case !e.reachesHome(s, at):
		return 0, nil
	}
	return e.mend(ctx, s, frame)
}

// again tells the hub what it may conclude from the error of sending something
// again that a node has taken before: never that it cannot have arrived.
func (e *Engine) again(err error) error {
	if err = e.classify("publish again", err); errors.Is(err, fanout.ErrRefused) {
		return fmt.Errorf("%w: %v", fanout.ErrRefused, err)
	}
	return errors.New(err.Error())
}

// send sends a frame once. at is the node it went to, if it was we who chose it.
func (e *Engine) send(ctx context.Context, channel string, frame []byte) (n int, at string, err error) {
	build := func() rueidis.Completed { return e.mode.publish(e.client.B(), channel, frame) }
	if e.mode.redirects() {
		result, at := e.route(ctx, channel, build(), build)
		return e.count(result, channel, at)
	}
	// PUBLISH would be heard from any node, but only those who publish and
	// subscribe at the same node see one order.
	node, at, err := e.topology.node(ctx, channel)
	if err != nil {
		return 0, "", err
	}
	return e.count(node.do(e.patience(ctx), build()), channel, at)
}

// count returns the number of subscribers that a node has counted.
func (e *Engine) count(result rueidis.RedisResult, channel, at string) (n int, _ string, err error) {
	if errors.Is(result.NonRedisError(), rueidis.ErrClosing) && !e.mode.redirects() {
		e.topology.distrust() // the node has left the cluster
		return 0, at, rueidis.ErrNoSlot
	}
	e.notice(result, channel, at)
	count, err := result.AsInt64()
	if failed := resultError(result); failed != nil {
		err = failed
	}
	if !e.mode.addressMatters() {
		at = "" // there is one server, whatever its address
	}
	return int(count), at, err
}

// notice has the node looked at that did not answer, or in a way that another one
// may answer otherwise. That a caller has gone is not the node's fault. at is ""
// if the client has chosen the node.
func (e *Engine) notice(result rueidis.RedisResult, channel, at string) {
	err := result.Error()
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if redisError(err) == nil {
		e.topology.distrust()
		e.inspector.suspect(at)
		return
	}
	word, _, _ := strings.Cut(err.Error(), " ")
	switch word {
	case "READONLY", "MOVED": // MOVED comes here if the client was sent to and fro
		e.inspector.suspect(at)
	case "CLUSTERDOWN", "MASTERDOWN", "LOADING": // which a node may say for ever
		e.topology.refreshClient(channel)
	default:
		return
	}
	e.topology.distrust()
	if p := e.topology.pipeline(at); p != nil {
		p.complaint.Store(&complaint{err, ticks()})
	}
}

// patience returns the context in which an order is waited for: one that ends when
// an attempt has to, or the caller's own, since what is sent for it has a time of
// its own (twice that, if it is the last that still finds the node answering).
func (e *Engine) patience(ctx context.Context) context.Context {
	if ctx == context.Background() || deadline.Shared(ctx, 0) {
		ctx, _ = e.attempts.Bound(ctx)
		return ctx
	}
	return deadline.Waive(ctx, 2*e.cfg.ProbeTimeout)
}

// route sends a command to where a channel lives as we know it. The client would go
// on for seconds to ask a node that is silent, or that the slot has left; our table
// has the homes of our own subscriptions, which follow the slot at once. Where we
// know nothing, and when we are wrong, the client finds the way, and at is "". Then
// again makes the command again: each is sent once.
func (e *Engine) route(ctx context.Context, channel string, cmd rueidis.Completed, again func() rueidis.Completed) (_ rueidis.RedisResult, at string) {
	at = e.topology.owner(e.mode.slot(channel))
	if node := e.topology.pipeline(at); node != nil {
		result := node.do(e.patience(ctx), cmd)
		if !elsewhere(result) {
			return result, at
		}
		e.redirected(result, at)
		cmd = again()
	} else if at != "" && e.mode.hasSlots() {
		e.topology.refreshClient(channel) // which does not know the node
	}
	return e.ask(ctx, cmd), ""
}

// ask leaves it to the client to find the way.
func (e *Engine) ask(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	ctx, hold := e.attempts.Bound(ctx)
	defer hold.Release()
	return e.client.Do(ctx, e.pin(cmd))
}

// redirected notes that a node has sent us elsewhere, which may be where we are:
// then the address leads to another server by now.
func (e *Engine) redirected(result rueidis.RedisResult, at string) {
	e.topology.distrust()
	if re, ok := rueidis.IsRedisErr(result.Error()); ok {
		if to, moved := re.IsMoved(); moved && resolve(to, at) == at {
			e.inspector.suspect(at)
		}
	}
}

// elsewhere reports whether the slot has left the node, or the node the cluster:
// the client knows the way then.
func elsewhere(result rueidis.RedisResult) bool {
	err := result.Error()
	if re, ok := rueidis.IsRedisErr(err); ok {
		_, moved := re.IsMoved()
		_, ask := re.IsAsk()
		return moved || ask
	}
	return errors.Is(err, rueidis.ErrClosing)
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
		e.inspector.suspect(at)
		if !e.sleep(ctx, delay) {
			if e.ctx.Err() != nil {
				return 0, e.errClosed()
			}
			return 0, fmt.Errorf("%s: nobody received what was published to %s, by a node that is no primary: %w",
				e.cfg.Name, channel, errors.Join(context.Cause(ctx), err))
		}
		n, at, err = e.send(ctx, channel, frame)
		if err != nil && !errors.Is(err, errReplica) { // then it was not sent
			return 0, e.again(err)
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
func (e *Engine) mend(ctx context.Context, s *sub, frame []byte) (int, error) {
	delay := firstRetry
	_, _, confirms := s.state()
	for {
		home, on, now := s.state()
		if on && now == confirms && home != nil {
			home.doubt(s)
			e.topology.doubt(home)
			e.inspector.suspect(home.addr)
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
		if err != nil && !errors.Is(err, errReplica) { // then it was not sent
			return 0, e.again(err)
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
