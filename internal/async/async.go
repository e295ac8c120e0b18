// Package async has publishers that do not wait. Each has a place in a buffer
// and an operation in flight, from when its message is accepted until it has
// been told what became of it:
//
//	Begin ─▶ room in the buffer, an operation ─▶ Tell: the room is given back
//	                                              └─▶ the callback ─▶ the operation ends
package async

import (
	"context"
	"fmt"
	"slices"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/budget"
	"github.com/fanoutgo/fanout/internal/callback"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/unsent"
)

// An Ack is a publisher that does not wait.
type Ack struct {
	done  func(error) // nil: the publisher is not told
	bytes int64       // that it has of the buffer
}

// MessageCost is what a message takes of the buffer, besides its data.
const MessageCost = 256

// Publishers are those of a hub. Init makes them. The methods may be called
// concurrently.
type Publishers struct {
	env    Env
	buffer *budget.Budget
	queue  callback.Queue[Ack, error]
}

// Env is the hub.
type Env struct {
	Ops    *gate.Gate
	Open   context.Context // ends when the hub begins to close, with ErrClosed
	Bounds *deadline.Group // bounds how long a publisher waits for the buffer
	// Go starts a goroutine that the hub waits for.
	Go func(func())
	// Explain adds to the error of a context what is known of the backend.
	Explain func(context.Context, error) error
}

// Init makes p, which is zero, publishers with a buffer of size bytes.
func (p *Publishers) Init(env *Env, size int) {
	p.env, p.buffer = *env, budget.New(int64(size))
	p.queue.Call, p.queue.Go = p.call, env.Go
}

// Begin begins to publish a message of size bytes. The operation that it begins
// is over when the ack is told.
func (p *Publishers) Begin(ctx context.Context, size int, done func(error)) (Ack, error) {
	a := Ack{done, int64(size + MessageCost)}
	return a, p.reserve(ctx, 1, a.bytes)
}

// BeginAll is Begin for n messages: done is called when all acks have been
// told.
func (p *Publishers) BeginAll(ctx context.Context, n, size int, done func(error)) ([]Ack, error) {
	if n > 1 && done != nil {
		done = jointly(n, done)
	}
	acks := slices.Repeat([]Ack{{done, int64(size + MessageCost)}}, n)
	if err := p.reserve(ctx, n, int64(n)*acks[0].bytes); err != nil {
		return nil, err
	}
	return acks, nil
}

// reserve takes room in the buffer and begins n operations.
func (p *Publishers) reserve(ctx context.Context, n int, bytes int64) error {
	err := context.Cause(ctx)
	if err == nil && !p.buffer.TryTake(bytes) {
		err = p.awaitBuffer(ctx, bytes)
	}
	if err == nil && !p.env.Ops.Enter(n) {
		p.buffer.Give(bytes)
		err = adapter.ErrClosed
	}
	if err != nil {
		return adapter.Unsent(err)
	}
	return nil
}

// awaitBuffer waits for room in the buffer, as long as a publish may take.
func (p *Publishers) awaitBuffer(ctx context.Context, bytes int64) error {
	if _, ok := ctx.Deadline(); !ok {
		var hold deadline.Hold
		ctx, hold = p.env.Bounds.Bound(ctx)
		defer hold.Release()
	}
	err := p.buffer.Take(ctx, p.env.Open, bytes)
	if err == nil {
		return nil
	}
	return p.env.Explain(ctx, fmt.Errorf("waiting for space in Options.PublishBuffer: %w", err))
}

// jointly returns a function that calls done when it is called for the n-th
// time. The one goroutine for callbacks makes all these calls.
func jointly(n int, done func(error)) func(error) {
	errs := make([]error, 0, n)
	return func(err error) {
		if errs = append(errs, err); len(errs) == n {
			done(unsent.Join(errs))
		}
	}
}

// Tell tells publishers, in their turn, what became of their messages. The
// operation of each ends when it has been told. Tell keeps the list.
func (p *Publishers) Tell(to []Ack, err error) {
	var bytes int64
	for i := range to {
		bytes += to[i].bytes
	}
	p.buffer.Give(bytes) // now: a callback may publish
	p.queue.Add(to, err)
}

// call tells one publisher.
func (p *Publishers) call(to Ack, err error) {
	defer p.env.Ops.Leave(1)
	if to.done != nil {
		to.done(err)
	}
}
