package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/redis/rueidis"
)

const (
	// maxFlights is how many batches a pipeline has under way: one, and more when
	// flights take longer than longFlight. Where the network is fast one makes
	// larger batches, and where it is slow who comes a moment later need not wait for
	// the whole of the one before.
	maxFlights = 3
	longFlight = 2 * time.Millisecond
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
	addr   string
	client atomic.Pointer[rueidis.Client]

	used      atomic.Bool               // something was sent since the inspector looked
	blocked   atomic.Pointer[failure]   // why nothing may be sent; nil: it may
	complaint atomic.Pointer[complaint] // what the node has last answered for all

	mu      sync.Mutex // guards all below
	pending []*order
	flights int
	begun   int64 // when the latest flight was; see ticks
	slow    bool  // the last flight that returned was long
}

// An order is a command and who waits for its result.
type order struct {
	cmd    rueidis.Completed
	result chan rueidis.RedisResult // capacity 1; nil: nobody waits
	errand *errand                  // then it learns the result
}

func (o *order) finish(result rueidis.RedisResult) {
	if o.errand != nil {
		o.errand.finish(result)
		return
	}
	o.result <- result
}

var orders = sync.Pool{New: func() any { return &order{result: make(chan rueidis.RedisResult, 1)} }}

// do sends a command and returns its result. When ctx ends it returns, with an
// error that wraps fanout.ErrUnsent if the command has not been sent by then, and
// never will be.
func (p *pipeline) do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	o := orders.Get().(*order)
	o.cmd = cmd
	if p.add(o) {
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

// submit sends a command that nobody waits for.
func (p *pipeline) submit(o *order) {
	if p.add(o) {
		p.engine.wg.Go(p.fly) // who submits has entered
	}
}

// add adds an order, and reports whether the caller is to begin a flight.
func (p *pipeline) add(o *order) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = append(p.pending, o)
	first = p.flights == 0 || p.flights < maxFlights && (p.slow || ticks()-p.begun > int64(longFlight))
	if first {
		p.flights++
		p.begun = ticks()
	}
	return first
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
	p.engine.wg.Go(p.fly) // a caller has entered
}

// fly sends batches until there are none.
func (p *pipeline) fly() {
	for more := true; more; more = p.more() {
		p.send(p.engine.attempts.Context(), p.take())
	}
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

// take takes the next batch. There may be none: another flight took it. Those who
// are about to publish do so before, if they need nothing but a processor: that
// costs an idle process nothing, and saves a busy one most of its writes.
func (p *pipeline) take() (batch []*order) {
	runtime.Gosched()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = ticks()
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
	p.slow = ticks()-p.begun > int64(longFlight)
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
	if f := p.blocked.Load(); f != nil {
		for _, o := range batch {
			o.finish(rueidis.NewErrorResult(fmt.Errorf("%w: %w", f.err, fanout.ErrUnsent)))
		}
		return
	}
	if !p.used.Load() {
		p.used.Store(true)
	}
	commands := make(rueidis.Commands, len(batch))
	for i, o := range batch {
		commands[i] = o.cmd
	}
	commands[0] = p.engine.pin(commands[0])
	var down error
	fine := false
	for i, result := range (*p.client.Load()).DoMulti(ctx, commands...) {
		if err := result.NonRedisError(); err != nil {
			down = err
		} else if result.Error() == nil {
			fine = true
		}
		batch[i].finish(result)
	}
	if fine && p.complaint.Load() != nil {
		p.complaint.Store(nil)
	}
	if down != nil {
		for _, o := range p.takeAll() {
			o.finish(rueidis.NewErrorResult(fmt.Errorf("%w: %w", down, fanout.ErrUnsent)))
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

// A complaint is an answer of a node that concerns everything that is sent to it.
type complaint struct {
	err error
	at  int64 // see ticks
}

// trouble says why nothing can be published to the node; nil: it can, for all
// we know. What the node has answered counts for as long as an answer may take.
func (p *pipeline) trouble() error {
	if f := p.blocked.Load(); f != nil {
		return f.err
	}
	if c := p.complaint.Load(); c != nil && time.Duration(ticks()-c.at) < p.engine.cfg.ProbeTimeout {
		return c.err
	}
	return nil
}

// identify asks who is at the end of the connection that the pipeline uses.
func (p *pipeline) identify(ctx context.Context) (identity, error) {
	return identify(ctx, *p.client.Load())
}

// hangUp closes the connection that the pipeline uses, which is the client's;
// the client makes another when it needs one. There is no method for that, but
// the server closes the connection after QUIT. (What others have sent on it
// after that fails, and may or may not have been done.)
func (p *pipeline) hangUp(ctx context.Context) error {
	client := *p.client.Load()
	results := client.DoMulti(ctx, client.B().Quit().Build(), client.B().Ping().Build())
	if results[1].NonRedisError() != nil {
		return nil
	}
	return fmt.Errorf("the connection to %s stands after QUIT: %w", p.addr, errors.Join(results[0].Error(), errReply))
}

// pin has a command, and what is sent with it, use the first of the connections
// that a client keeps to a server, which is the one that the inspector looks
// after. A client of a cluster has one for each node, unless it is told
// otherwise. Others take any for commands with a key, unless it is of slot 0.
func (e *Engine) pin(cmd rueidis.Completed) rueidis.Completed {
	if e.mode.hasSlots() {
		return cmd
	}
	return cmd.SetSlot(slotZero)
}

// slotZero is a key of slot 0.
const slotZero = "06S"
