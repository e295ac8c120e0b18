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

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/redis/rueidis"
)

const (
	// maxFlights is the most batches that a pipeline has under way. As long as
	// flights take less than longFlight it has only one: on a fast network that
	// makes larger batches. On a slow network a command should not have to wait
	// for the whole flight before it.
	maxFlights = 3
	longFlight = 2 * time.Millisecond
	// maxBatch bounds a batch. The largest that the client sends is 2,000.
	maxBatch = 512
)

// A pipeline sends commands to one node, in batches. A batch under way is a
// flight. While a pipeline has as many flights as it may have, further commands
// gather, and are sent together when a flight returns: dozens of commands then
// share a write, a read, and a turn of the server's loop. An idle pipeline
// sends at once, on the goroutine of its caller. The order of commands is not
// kept: callers that need it wait for one command before they send the next.
//
// The methods may be called concurrently.
type pipeline struct {
	engine *Engine
	addr   string
	client atomic.Pointer[rueidis.Client]
	keeper *keeper

	used      atomic.Bool               // something was sent since the inspector looked
	blocked   atomic.Pointer[failure]   // why nothing may be sent; nil: commands may be sent
	complaint atomic.Pointer[complaint] // the latest error reply that concerns all commands

	mu      sync.Mutex // guards all below
	pending []*order
	flights int
	begun   int64 // when the latest flight was; see clock
	slow    bool  // the last flight that returned was long
}

func newPipeline(e *Engine, addr string) *pipeline {
	p := &pipeline{engine: e, addr: addr}
	p.keeper = &keeper{engine: e, node: p, busy: make(chan struct{}, 1)}
	return p
}

// An order is a command and what waits for its result.
type order struct {
	cmd    rueidis.Completed
	result chan rueidis.RedisResult // capacity 1; nil: no caller waits
	errand *errand                  // gets the result if no caller waits
}

func (o *order) finish(result rueidis.RedisResult) {
	if o.errand != nil {
		o.errand.finish(result)
		return
	}
	o.result <- result
}

var orders = sync.Pool{New: func() any { return &order{result: make(chan rueidis.RedisResult, 1)} }}

// do sends a command and returns its result. It returns when ctx ends. Then the
// error wraps adapter.ErrUnsent if the command has not been sent and will not
// be.
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
		// The order is not put back: if it is under way its result still
		// arrives.
		err := context.Cause(ctx)
		if p.withdraw(o) {
			err = adapter.Unsent(err)
		}
		return rueidis.NewErrorResult(err)
	}
}

// submit sends a command whose result goes to its errand.
func (p *pipeline) submit(o *order) {
	if p.add(o) {
		p.engine.wg.Go(p.fly) // Close waits for the errand
	}
}

// add adds an order. It reports whether the caller has to begin a flight.
func (p *pipeline) add(o *order) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = append(p.pending, o)
	first = p.flights == 0 || p.flights < maxFlights && (p.slow || clock.Since(p.begun) > longFlight)
	if first {
		p.flights++
		p.begun = clock.Now()
	}
	return first
}

// begin begins a flight. A caller whose context is the engine's, with enough
// time left, makes the flight itself, which saves two switches of goroutines.
// Commands that gather meanwhile are sent by another goroutine, so that the
// caller need not wait for them.
func (p *pipeline) begin(ctx context.Context) {
	if enough := p.engine.cfg.ProbeTimeout * 3 / 4; deadline.Shared(ctx, enough) {
		if p.send(ctx, p.take()); !p.more() {
			return
		}
	}
	p.engine.wg.Go(p.fly) // Close waits for the caller
}

// fly sends batches until there are none.
func (p *pipeline) fly() {
	for more := true; more; more = p.more() {
		p.send(p.engine.attempts.Context(), p.take())
	}
}

// withdraw takes an order back. It reports false if the order has been sent.
func (p *pipeline) withdraw(o *order) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.pending, o)
	if i >= 0 {
		p.pending = slices.Delete(p.pending, i, i+1)
	}
	return i >= 0
}

// take takes the next batch, which is empty if another flight has taken it.
// Before that it yields to goroutines that are ready to publish: that costs an
// idle process nothing, and saves a busy one most of its writes.
func (p *pipeline) take() (batch []*order) {
	runtime.Gosched()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = clock.Now()
	if len(p.pending) <= maxBatch {
		batch, p.pending = p.pending, nil
		return batch
	}
	batch = slices.Clone(p.pending[:maxBatch]) // a copy, since withdraw moves the orders
	p.pending = slices.Delete(p.pending, 0, maxBatch)
	return batch
}

// more is called when a flight has returned. It reports whether there is more
// to send. If not, the flight has ended.
func (p *pipeline) more() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = clock.Since(p.begun) > longFlight
	if len(p.pending) > 0 {
		return true
	}
	p.flights--
	return false
}

// send sends a batch and distributes the results. If the node does not answer,
// the commands that have gathered meanwhile fail as well, without being sent.
func (p *pipeline) send(ctx context.Context, batch []*order) {
	if len(batch) == 0 {
		return
	}
	if f := p.blocked.Load(); f != nil {
		for _, o := range batch {
			o.finish(rueidis.NewErrorResult(adapter.Unsent(f.err)))
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
			o.finish(rueidis.NewErrorResult(adapter.Unsent(down)))
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

// A complaint is an error reply that concerns all commands that are sent to a
// node.
type complaint struct {
	err error
	at  int64 // see clock
}

// trouble returns why nothing can be published to the node; nil if the reason
// is not known. A complaint counts for as long as an answer may take.
func (p *pipeline) trouble() error {
	if f := p.blocked.Load(); f != nil {
		return f.err
	}
	if c := p.complaint.Load(); c != nil && clock.Since(c.at) < p.engine.cfg.ProbeTimeout {
		return c.err
	}
	return nil
}

// identify asks for the identity of the server that the pipeline is connected
// to.
func (p *pipeline) identify(ctx context.Context) (identity, error) {
	return identify(ctx, *p.client.Load())
}

// hangUp closes the connection that the pipeline uses, which belongs to the
// client, and has the client make another one. The client has no method for
// that, but the server closes the connection after QUIT. (Commands that others
// have sent after it fail, and may or may not have had an effect.)
//
// The client answers the commands that wait at a closed connection before it
// stops using it, so a command that follows at once can still meet it. hangUp
// returns nil when a command has been answered again; ctx ends the attempts.
func (p *pipeline) hangUp(ctx context.Context) error {
	client := *p.client.Load()
	results := client.DoMulti(ctx, client.B().Quit().Build(), client.B().Ping().Build())
	if results[1].NonRedisError() == nil {
		return fmt.Errorf("the connection to %s is open after QUIT: %w", p.addr, errors.Join(results[0].Error(), errReply))
	}
	pause := backoff.Backoff{First: time.Millisecond}
	for {
		err := client.Do(ctx, client.B().Ping().Build()).NonRedisError()
		if err == nil {
			return nil
		}
		if !pause.Wait(ctx) {
			return fmt.Errorf("no new connection to %s: %w", p.addr, err)
		}
	}
}

// pin makes a command, and the commands of its batch, use the first of the
// connections that a client keeps to a server, which is the one that the
// inspector checks. A client of a cluster has one for each node, unless its
// options say otherwise. Other clients choose any connection for commands with
// a key, except for slot 0, which always uses the first.
func (e *Engine) pin(cmd rueidis.Completed) rueidis.Completed {
	if e.mode.hasSlots() {
		return cmd
	}
	return cmd.SetSlot(slotZero)
}

// slotZero is a key of slot 0.
const slotZero = "06S"
