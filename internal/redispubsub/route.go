package redispubsub

import (
	"context"
	"errors"

	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/redis/rueidis"
)

// attemptContext returns the context in which a caller waits for a command: one
// that ends when an attempt has to. If the caller has a deadline, its context
// is used instead, since the command has a time limit of its own (twice that of
// an attempt, if the node stops answering during it).
func (e *Engine) attemptContext(ctx context.Context) context.Context {
	if ctx == context.Background() || deadline.Shared(ctx, 0) {
		ctx, _ = e.attempts.Bound(ctx)
		return ctx
	}
	return deadline.Waive(ctx, 2*e.cfg.ProbeTimeout)
}

// route sends a command to the home of a channel. Our table has the homes of
// our own subscriptions, which follow a slot at once, while the client may ask
// a silent node, or one that the slot has left, for seconds. If we do not know
// the home, or the node redirects, the client sends the command, and at is "".
// For that again makes the command again: each command is sent once.
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
		e.topology.refreshClient(channel) // since it does not know the node
	}
	return e.ask(ctx, cmd), ""
}

// ask leaves it to the client to find the node.
func (e *Engine) ask(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	ctx, hold := e.attempts.Bound(ctx)
	defer hold.Release()
	return e.client.Do(ctx, e.pin(cmd))
}

// redirected notes that a node has named another home. That may be the address
// of the node itself: then the address leads to another server now.
func (e *Engine) redirected(result rueidis.RedisResult, at string) {
	e.topology.refreshTable()
	if re, ok := rueidis.IsRedisErr(result.Error()); ok {
		if to, moved := re.IsMoved(); moved && resolve(to, at) == at {
			e.inspector.inspectSoon(at)
		}
	}
}

// elsewhere reports whether the slot has left the node, or the node the
// cluster. Then the client finds the right node.
func elsewhere(result rueidis.RedisResult) bool {
	err := result.Error()
	if re, ok := rueidis.IsRedisErr(err); ok {
		_, moved := re.IsMoved()
		_, ask := re.IsAsk()
		return moved || ask
	}
	return errors.Is(err, rueidis.ErrClosing)
}
