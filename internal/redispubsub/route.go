package redispubsub

import (
	"context"
	"errors"

	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/redis/rueidis"
)

// attemptContext returns the context in which a caller waits for a command: one
// that ends when an attempt has to. If the caller has a deadline of its own that
// is used instead, since the command has a time limit of its own (twice the
// attempt's, if it is the last one that still finds the node answering).
func (e *Engine) attemptContext(ctx context.Context) context.Context {
	if ctx == context.Background() || deadline.Shared(ctx, 0) {
		ctx, _ = e.attempts.Bound(ctx)
		return ctx
	}
	return deadline.Waive(ctx, 2*e.cfg.ProbeTimeout)
}

// route sends a command to where a channel lives, as far as we know. The client
// would go on for seconds to ask a node that is silent, or that the slot has
// left; our table has the homes of our own subscriptions, which follow the slot
// at once. Where we know nothing, and when we are wrong, the client finds the
// way, and at is "". For that again makes the command again: each is sent once.
func (e *Engine) route(ctx context.Context, channel string, cmd rueidis.Completed, again func() rueidis.Completed) (_ rueidis.RedisResult, at string) {
	at = e.topology.owner(e.mode.slot(channel))
	if node := e.topology.pipeline(at); node != nil {
		result := node.do(e.attemptContext(ctx), cmd)
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
	e.topology.refreshTable()
	if re, ok := rueidis.IsRedisErr(result.Error()); ok {
		if to, moved := re.IsMoved(); moved && resolve(to, at) == at {
			e.inspector.inspectSoon(at)
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
