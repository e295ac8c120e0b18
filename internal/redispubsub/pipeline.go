package redispubsub

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/redis/rueidis"
)

const (
	// maxFlights is how many batches a pipeline has under way. One would make who
	// comes a moment later wait for the whole of the one before.
	maxFlights = 2
	// maxBatch bounds a batch. The client sends those of 2,000 commands otherwise.
	maxBatch = 512
)

// A pipeline sends commands to one node. While as many batches as it may have are
// under way further commands gather, and go together when one returns: a write, a
// read, and on the server one turn of its loop, are then shared by dozens of
// commands. An idle pipeline sends at once, on the goroutine of its caller. The
// order of commands is not kept: who needs it waits for one before the next.
//
// Its methods may be called by anyone.
type pipeline struct {
	engine *Engine
	client atomic.Pointer[rueidis.Client]

	mu      sync.Mutex // guards all below
	pending []*order
	flights int
}

// An order is a command and who waits for its result.
type order struct {
	cmd    rueidis.Completed
	result chan rueidis.RedisResult // capacity 1
}

var orders = sync.Pool{New: func() any { return &order{result: make(chan rueidis.RedisResult, 1)} }}

// do sends a command and returns its result. When ctx ends it returns, with an
// error that wraps fanout.ErrUnsent if the command has not been sent by then, and
// never will be.
func (p *pipeline) do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	o := orders.Get().(*order)
	o.cmd = cmd
	p.mu.Lock()
	p.pending = append(p.pending, o)
	first := p.flights < maxFlights
	if first {
		p.flights++
	}
	p.mu.Unlock()
	if first {
		p.begin(ctx)
	}
	select {
	case result := <-o.result:
		o.cmd = rueidis.Completed{}
		orders.Put(o)
		return result
	case <-ctx.Done():
		// The order is not put back: if it is under way its result is still to come.
		err := context.Cause(ctx)
		if p.withdraw(o) {
			err = fmt.Errorf("%w: %w", err, fanout.ErrUnsent)
		}
		return rueidis.NewErrorResult(err)
	}
}

// begin begins a flight. A caller who has no will of its own, and time, makes it
// itself, which saves two switches of goroutines; what gathers meanwhile goes on in
// a goroutine, so that it need not stay for others.
func (p *pipeline) begin(ctx context.Context) {
	if enough := p.engine.cfg.ProbeTimeout * 3 / 4; deadline.Shared(ctx, enough) {
		if p.send(ctx, p.take()); !p.more() {
			return
		}
	}
	p.engine.wg.Go(func() { // a caller has entered
		for more := true; more; more = p.more() {
			p.send(p.engine.attempts.Context(), p.take())
		}
	})
}

// withdraw takes back an order, if it has not been sent.
func (p *pipeline) withdraw(o *order) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.pending, o)
	if i >= 0 {
		p.pending = slices.Delete(p.pending, i, i+1)
	}
	return i >= 0
}

// take takes the next batch. There may be none: another flight took it.
func (p *pipeline) take() (batch []*order) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) <= maxBatch {
		batch, p.pending = p.pending, nil
		return batch
	}
	batch = slices.Clone(p.pending[:maxBatch]) // withdraw moves what is behind
	p.pending = slices.Delete(p.pending, 0, maxBatch)
	return batch
}

// more reports whether there is something for a flight that has returned. If not
// the flight is over.
func (p *pipeline) more() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) > 0 {
		return true
	}
	p.flights--
	return false
}

// send sends a batch and hands out the results. If the node does not answer,
// those who wait for the next batch need not find out for themselves.
func (p *pipeline) send(ctx context.Context, batch []*order) {
	if len(batch) == 0 {
		return
	}
	commands := make(rueidis.Commands, len(batch))
	for i, o := range batch {
		commands[i] = o.cmd
	}
	var down error
	for i, result := range (*p.client.Load()).DoMulti(ctx, commands...) {
		if err := result.NonRedisError(); err != nil {
			down = err
		}
		batch[i].result <- result
	}
	if down != nil {
		for _, o := range p.takeAll() {
			o.result <- rueidis.NewErrorResult(fmt.Errorf("%w: %w", down, fanout.ErrUnsent))
		}
	}
}

func (p *pipeline) takeAll() []*order {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.pending
	p.pending = nil
	return all
}
