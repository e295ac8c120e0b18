package redispubsub

import (
	"sync"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/redis/rueidis"
)

// An errand is a frame that was published without waiting.
type errand struct {
	engine  *Engine
	channel string
	frame   []byte
	at      string // the node that it was sent to
	done    adapter.Completion
	order   order
}

var errands = sync.Pool{New: func() any { return new(errand) }}

// PublishAsync implements adapter.AsyncPublisher.
func (e *Engine) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	if !e.limits.allows(len(frame)) {
		return false // Publish asks for the limit, or returns the error
	}
	if !e.ops.Enter(2) { // for this call and the errand, which may end first
		return false
	}
	defer e.ops.Leave(1)
	at := e.topology.owner(e.mode.slot(channel))
	node := e.topology.pipeline(at)
	if node == nil {
		e.ops.Leave(1)
		return false
	}
	r := errands.Get().(*errand)
	*r = errand{engine: e, channel: channel, frame: frame, at: at, done: done}
	r.order = order{cmd: e.mode.publish(e.client.B(), channel, frame), errand: r}
	node.submit(&r.order)
	return true
}

// finish is called with the result by the flight that the errand was part of.
// It does not wait: unless a subscriber received the frame, it continues on
// another goroutine.
func (r *errand) finish(result rueidis.RedisResult) {
	e := r.engine
	n, err := result.AsInt64()
	if err == nil && e.certain(r.channel, r.at, int(n)) {
		r.complete(e.receivers(r.channel, int(n)), nil)
		return
	}
	e.wg.Go(func() { // Close waits for the errand, so it may begin a goroutine
		ctx := e.attempts.Context()
		at := r.at
		if e.mode.redirects() && elsewhere(result) {
			e.redirected(result, at)
			result, at = e.ask(ctx, e.mode.publish(e.client.B(), r.channel, r.frame)), ""
		}
		n, at, err := e.count(result, r.channel, at)
		r.complete(e.conclude(ctx, r.channel, r.frame, n, at, err))
	})
}

func (r *errand) complete(receivers int, err error) {
	e, done := r.engine, r.done
	*r = errand{}
	errands.Put(r)
	done.Complete(receivers, err)
	e.ops.Leave(1)
}
