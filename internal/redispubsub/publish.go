package redispubsub

import (
	"context"
	"errors"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/redis/rueidis"
)

// Publish implements adapter.Adapter.
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

// conclude returns the results of Publish after a frame was sent once, to a
// node that counted n subscribers. It sends the frame again if it has to.
func (e *Engine) conclude(ctx context.Context, channel string, frame []byte, n int, at string, err error) (receivers int, _ error) {
	if err != nil {
		return 0, e.classify("publish", err)
	}
	if !e.certain(channel, at, n) {
		if n, err = e.nobody(ctx, channel, at, frame); err != nil {
			return 0, err
		}
	}
	return e.receivers(channel, n), nil
}

// enter begins an operation that Close waits for, until e.ops.Leave.
func (e *Engine) enter(ctx context.Context) error {
	if !e.ops.Enter(1) {
		return adapter.Unsent(e.errClosed())
	}
	if ctx.Err() != nil {
		e.ops.Leave(1)
		return adapter.Unsent(context.Cause(ctx))
	}
	return nil
}

// send sends a frame once. at is the node it went to; "" if the client chose
// it.
func (e *Engine) send(ctx context.Context, channel string, frame []byte) (n int, at string, err error) {
	build := func() rueidis.Completed { return e.mode.publish(e.client.B(), channel, frame) }
	if e.mode.redirects() {
		result, at := e.route(ctx, channel, build(), build)
		return e.count(result, channel, at)
	}
	// Subscribers at all nodes get a message from any node, but only those that
	// publish and subscribe at the same node see one order.
	node, at, err := e.topology.node(ctx, channel)
	if err != nil {
		return 0, "", err
	}
	return e.count(node.do(e.attemptContext(ctx), build()), channel, at)
}

// count returns the number of subscribers that a node has counted.
func (e *Engine) count(result rueidis.RedisResult, channel, at string) (n int, _ string, err error) {
	if errors.Is(result.NonRedisError(), rueidis.ErrClosing) && !e.mode.redirects() {
		e.topology.refreshTable() // since the node has left the cluster
		return 0, at, rueidis.ErrNoSlot
	}
	e.notice(result, channel, at)
	count, err := result.AsInt64()
	if failed := resultError(result); failed != nil {
		err = failed
	}
	if !e.mode.addressMatters() {
		at = "" // there is only one server, at any address
	}
	return int(count), at, err
}

// notice handles the failure of a command that a node did not answer, or
// answered as another node might not. It is no failure of the node if the
// caller's context has ended. at is "" if the client has chosen the node.
func (e *Engine) notice(result rueidis.RedisResult, channel, at string) {
	err := result.Error()
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if redisError(err) == nil {
		e.topology.refreshTable()
		e.inspector.inspectSoon(at)
		return
	}
	switch kindOf(err.Error()) {
	case kindReadOnly, kindMoved: // MOVED arrives here if the client was redirected back and forth
		e.inspector.inspectSoon(at)
	case kindDown: // a node may answer that for ever
		e.topology.refreshClient(channel)
	default:
		return
	}
	e.topology.refreshTable()
	if p := e.topology.pipeline(at); p != nil {
		p.complaint.Store(&complaint{err, clock.Now()})
	}
}
