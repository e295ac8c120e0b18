// Package coalesce gathers what is to be sent while something is being sent.
//
// While a Queue is idle an item is sent at once, on the goroutine of its
// caller. While one send is in flight further items gather, and go as one batch
// when it returns. There is no timer: an idle queue adds no latency, and under
// load the batches are as large as the backend is slow. Group commit of
// databases works the same way.
package coalesce

import (
	"context"
	"sync"
)

// A Sender sends batches. A Queue never has two of its sends in flight.
type Sender[T any] interface {
	// Send sends a batch. The slice is the sender's. ctx ends when nobody
	// waits for the result any more.
	Send(ctx context.Context, batch []T) error
	// Go runs f in a goroutine that the sender's owner waits for.
	Go(f func())
	// Keep is called for an item that is to be sent later: its caller may have
	// left by then. It returns what to send in its place.
	Keep(ctx context.Context, item T) T
}

// A Queue is ready to use as it is; Sender must be set before the first Do. It
// may be used by any number of goroutines.
type Queue[T any] struct {
	Sender Sender[T]
	// Limit bounds a batch, in bytes as given to Do. One item may be larger.
	Limit int

	mu      sync.Mutex // guards all below
	busy    bool
	pending []*batch[T]
}

// A batch is a number of items that will be sent, or are being sent, together.
type batch[T any] struct {
	items   []*T // nil: withdrawn
	bytes   int
	waiting int // callers who still wait. Guarded by Queue.mu
	started bool
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{} // closed when err is set
	err     error
}

// Do sends an item of so many bytes and returns the error of the send that it
// was part of. Items are sent in the order of their Do.
//
// If ctx ends first Do returns its error; sent tells whether the send had begun
// by then. If it had not, the item is withdrawn: nobody will get it.
func (q *Queue[T]) Do(ctx context.Context, item T, bytes int) (sent bool, err error) {
	var b *batch[T]
	at := 0
	if !q.begin() {
		item = q.Sender.Keep(ctx, item) // outside of the lock: it may copy much
		b, at = q.join(item, bytes)
	}
	if b == nil {
		defer q.next() // also when Send panics: others must not wait for ever
		return true, q.Sender.Send(ctx, []T{item})
	}
	select {
	case <-b.done:
		return true, b.err
	case <-ctx.Done():
		return q.leave(b, at, bytes), context.Cause(ctx)
	}
}

// begin makes an idle queue busy, and reports whether it was idle.
func (q *Queue[T]) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	idle := !q.busy
	q.busy = true
	return idle
}

// join adds an item to a batch, and returns that and the item's place in it. If
// the queue has become idle meanwhile it is busy now, and there is no batch.
func (q *Queue[T]) join(item T, bytes int) (b *batch[T], at int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.busy {
		q.busy = true
		return nil, 0
	}
	b = q.gather(bytes)
	at = len(b.items)
	b.items = append(b.items, &item)
	b.bytes += bytes
	b.waiting++
	return b, at
}

// gather returns the batch that an item of so many bytes joins.
func (q *Queue[T]) gather(bytes int) *batch[T] {
	if n := len(q.pending); n > 0 {
		if b := q.pending[n-1]; b.bytes+bytes <= q.Limit {
			return b
		}
	}
	b := &batch[T]{done: make(chan struct{})}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	q.pending = append(q.pending, b)
	return b
}

// leave takes a caller whose context has ended out of its batch. A send that
// nobody waits for any more is cancelled by the last who leaves.
func (q *Queue[T]) leave(b *batch[T], at, bytes int) (sent bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b.waiting--
	if !b.started {
		b.items[at] = nil
		b.bytes -= bytes
		return false
	}
	if b.waiting == 0 {
		b.cancel()
	}
	return true
}

// next ends a send: what has gathered meanwhile goes on in a goroutine, so that
// the caller whose item is sent need not stay for the others'.
func (q *Queue[T]) next() {
	q.mu.Lock()
	more := len(q.pending) > 0
	q.busy = more
	q.mu.Unlock()
	if more {
		q.Sender.Go(q.drain)
	}
}

// drain sends batches until there are none.
func (q *Queue[T]) drain() {
	for {
		q.mu.Lock()
		if len(q.pending) == 0 {
			q.pending = nil
			q.busy = false
			q.mu.Unlock()
			return
		}
		b := q.pending[0]
		q.pending[0] = nil
		q.pending = q.pending[1:]
		b.started = true
		items := make([]T, 0, len(b.items))
		for _, item := range b.items {
			if item != nil {
				items = append(items, *item)
			}
		}
		q.mu.Unlock()
		if len(items) > 0 {
			b.err = q.Sender.Send(b.ctx, items)
		}
		b.cancel()
		close(b.done)
	}
}
