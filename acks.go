package fanout

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/callback"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notify"
)

// An ack is a publisher that does not wait.
type ack struct {
	done  func(error) // nil: it does not want to know
	bytes int64       // that it has of the buffer
}

// messageCost is what a message that nobody waits for takes of the buffer, beside
// its data.
const messageCost = 256

// beginOne begins to publish a message of so many bytes that nobody waits for. The
// operation that it begins is over when the ack is told.
func (h *Hub) beginOne(ctx context.Context, size int, done func(error)) (ack, error) {
	a := ack{done, int64(size + messageCost)}
	return a, h.reserve(ctx, 1, a.bytes)
}

// beginAsync is beginOne for n messages: done is called when all acks have been told.
func (h *Hub) beginAsync(ctx context.Context, n, size int, done func(error)) ([]ack, error) {
	if n > 1 && done != nil {
		done = jointly(n, done)
	}
	acks := slices.Repeat([]ack{{done, int64(size + messageCost)}}, n)
	if err := h.reserve(ctx, n, int64(n)*acks[0].bytes); err != nil {
		return nil, err
	}
	return acks, nil
}

// reserve takes room in the buffer and begins n operations.
func (h *Hub) reserve(ctx context.Context, n int, bytes int64) error {
	err := context.Cause(ctx)
	if err == nil && !h.buffer.tryTake(bytes) {
		err = h.awaitBuffer(ctx, bytes)
	}
	if err == nil {
		if err = h.begin(n); err != nil {
			h.buffer.give(bytes)
		}
	}
	if err != nil {
		return adapter.Unsent(err)
	}
	return nil
}

// awaitBuffer waits for room in the buffer, as long as a publish may take.
func (h *Hub) awaitBuffer(ctx context.Context, bytes int64) error {
	if _, ok := ctx.Deadline(); !ok {
		var hold deadline.Hold
		ctx, hold = h.publishes.Bound(ctx)
		defer hold.Release()
	}
	err := h.buffer.take(ctx, bytes, h.closing)
	if err == nil {
		return nil
	}
	return h.explain(ctx, fmt.Errorf("waiting for space in Options.PublishBuffer: %w", err))
}

// jointly returns what is to be called n times, and calls done the last time. All are
// called by the hub's one goroutine for that.
func jointly(n int, done func(error)) func(error) {
	errs := make([]error, 0, n)
	return func(err error) {
		if errs = append(errs, err); len(errs) == n {
			done(joinErrors(errs))
		}
	}
}

// An ackQueue tells publishers that do not wait what became of their messages.
type ackQueue = callback.Queue[ack, error]

// tell has publishers told. For each an operation is in flight, which is over
// when it has been told.
func (h *Hub) tell(to []ack, err error) {
	var bytes int64
	for i := range to {
		bytes += to[i].bytes
	}
	h.buffer.give(bytes) // now: a callback may publish
	h.acks.Add(to, err)
}

// callBack tells one publisher.
func (h *Hub) callBack(to ack, err error) {
	defer h.ops.Leave(1)
	if to.done != nil {
		to.done(err)
	}
}

// A buffer bounds the bytes that publishers who do not wait have under way. Its
// methods may be called by anyone.
type buffer struct {
	limit   int64
	used    atomic.Int64
	waiting atomic.Int32 // publishers who wait for others' bytes

	mu      locks.Mutex[locks.Innermost]
	changed notify.Notifier // there may be room. Guarded by mu
}

// take waits until there is room for n bytes, or until ctx or the hub ends. What is
// larger than the whole buffer has room when that is empty.
func (b *buffer) take(ctx context.Context, n int64, closing <-chan struct{}) error {
	if b.tryTake(n) {
		return nil
	}
	b.waiting.Add(1)
	defer b.waiting.Add(-1)
	for {
		b.mu.Lock()
		changed := b.changed.Wait()
		b.mu.Unlock()
		if b.tryTake(n) { // after asking to be told, so that nothing is missed
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-closing:
			return ErrClosed
		}
	}
}

func (b *buffer) tryTake(n int64) bool {
	for {
		used := b.used.Load()
		if used > 0 && used+n > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// give gives bytes back.
func (b *buffer) give(n int64) {
	b.used.Add(-n)
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	b.changed.Notify()
	b.mu.Unlock()
}
