package redispubsub

import (
	"context"
	"sync"

	"github.com/redis/rueidis"
)

// roles asks nodes whether they are primaries. Each caller gets the answer to a
// question that was sent after its call: callers that come while a question is
// under way share the next one.
type roles struct {
	engine *Engine

	mu    sync.Mutex
	asked map[string]*question // the next question, by address; nil: there is none; see run
}

type question struct {
	done    chan struct{}
	primary bool
	err     error
}

func (r *roles) init(e *Engine) {
	r.engine = e
	r.asked = make(map[string]*question)
}

// primary reports whether a node is a primary now. An error means that it did
// not answer.
func (r *roles) primary(ctx context.Context, addr string, node rueidis.Client) (bool, error) {
	r.mu.Lock()
	q, running := r.asked[addr]
	if q == nil {
		q = &question{done: make(chan struct{})}
		r.asked[addr] = q
	}
	if !running {
		r.engine.wg.Go(func() { r.run(addr, node) }) // Close waits for the caller
	}
	r.mu.Unlock()
	select {
	case <-q.done:
		return q.primary, q.err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// run asks one node while there are questions for it.
func (r *roles) run(addr string, node rueidis.Client) {
	for {
		r.mu.Lock()
		q := r.asked[addr]
		if q == nil {
			delete(r.asked, addr)
			r.mu.Unlock()
			return
		}
		r.asked[addr] = nil
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(r.engine.ctx, askTimeout)
		replica, err := isReplica(ctx, node)
		cancel()
		q.primary, q.err = err == nil && !replica, err
		close(q.done)
	}
}
