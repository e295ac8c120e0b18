package publishing

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/async"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/unsent"
	"github.com/fanoutgo/fanout/internal/wire"
)

// waiters are the publishers of a frame. Channel.mu guards count and cancel. It
// also guards the rest until the frame has begun; from then on the rest belongs
// to the holder of the turn.
type waiters struct {
	count int           // of publishers that wait for done
	done  chan struct{} // closed when err is set; nil: nobody waits
	err   error
	acks  []async.Ack  // publishers that do not wait
	one   [1]async.Ack // room for the first of them

	receivers int // of a notice; see adapter.Adapter.Publish

	cancel context.CancelFunc // ends sending the frame; nil if nothing may end it
}

// abandoned reports whether nobody waits for the outcome of a frame.
func (c *Channel) abandoned(f *frame) bool {
	c.mu.AssertHeld()
	return f.Waiters.count == 0 && len(f.Waiters.acks) == 0
}

// Publish sends a message and returns when the backend has taken it. Its error
// is the owner's.
//
// Publish may run on a new goroutine with a small stack, and growing the stack
// costs more than everything that Publish does. So each case, and what is
// rarely needed, is a function of its own with the variables that it needs. (To
// measure this, run the redis suite of internal/bench with -run 'half load',
// which publishes in such goroutines.)
func (c *Channel) Publish(ctx context.Context, m *wire.Message) error {
	if err := c.check(ctx); err != nil {
		return err
	}
	if c.loops {
		c.deliver(m)
		return nil
	}
	size := m.Size()
	c.mu.Lock()
	if !c.box.Begin() {
		return c.join(ctx, m, size)
	}
	c.mu.Unlock()
	return c.publishAlone(ctx, m, size)
}

// publishAlone sends a message of size bytes by itself and waits until it has
// arrived. The caller holds the turn, which publishAlone passes on.
func (c *Channel) publishAlone(ctx context.Context, m *wire.Message, size int) error {
	f := outbox.NewFrame[waiters](size)
	f.Add(m)
	c.number(f)
	return c.wrap(c.send(ctx, f))
}

// join adds m, of size bytes, to the pending frame and waits until that frame
// has arrived. If ctx ends first and the frame is not under way by then, the
// message is withdrawn: nobody will get it. join releases c.mu.
func (c *Channel) join(ctx context.Context, m *wire.Message, size int) error {
	c.mu.AssertHeld()
	f := c.box.Gather(size)
	at := f.Add(m)
	w := &f.Waiters
	w.count++
	if w.done == nil {
		w.done = make(chan struct{})
	}
	done := w.done
	c.mu.Unlock()
	bound := context.Background()
	if _, ok := ctx.Deadline(); !ok {
		bound = c.env.Bounds.Context()
	}
	select {
	case <-done:
		return c.wrap(w.err)
	case <-ctx.Done():
		return c.quit(c.env.WithHealth(context.Cause(ctx)), m, f, at)
	case <-bound.Done():
		return c.quit(c.env.WithHealth(context.Cause(bound)), m, f, at)
	}
}

// quit takes a publisher whose context has ended, with err, out of a frame.
func (c *Channel) quit(err error, m *wire.Message, f *frame, at outbox.Span) error {
	if c.withdraw(f, at) {
		err = adapter.Unsent(err)
		if c.fallsBack() {
			c.owner.Deliver(c.env.entry(m))
			err = fmt.Errorf("%w: %w", ErrLocalOnly, unsent.Hide(err))
		}
	}
	return c.wrap(err)
}

// withdraw takes a publisher that waits out of a frame and, if the frame is not
// under way, its message too. A frame under way for which nobody waits is given
// up.
func (c *Channel) withdraw(f *frame, at outbox.Span) (unsent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &f.Waiters
	w.count--
	if c.box.Withdraw(f, at) {
		return true
	}
	if c.abandoned(f) && w.cancel != nil {
		w.cancel()
	}
	return false
}

// PublishAsync sends a message, and tells a when the backend has taken it. It
// takes over the caller's hold of the channel, which ends when a is told.
func (c *Channel) PublishAsync(m *wire.Message, a async.Ack) {
	if err := c.check(context.Background()); err != nil || c.loops {
		if err == nil {
			c.deliver(m)
		}
		c.env.Publishers.Tell([]async.Ack{a}, err)
		c.Release()
		return
	}
	size := m.Size()
	c.mu.Lock()
	if !c.box.Begin() {
		c.addAsync(c.box.Gather(size), m, a)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	f := outbox.NewFrame[waiters](size)
	c.addAsync(f, m, a)
	c.start(f)
}

// addAsync adds the message of a publisher that does not wait. The frame's time
// runs from the first such message.
func (c *Channel) addAsync(f *frame, m *wire.Message, a async.Ack) {
	f.Add(m)
	w := &f.Waiters
	if w.acks == nil {
		w.acks = w.one[:0]
		f.Expire(time.Now().Add(c.env.Timeout))
	}
	w.acks = append(w.acks, a)
}
