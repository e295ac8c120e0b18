package publishing

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/unsent"
)

// send sends a numbered frame, waits for the outcome, and passes on the turn,
// which the caller holds.
func (c *Channel) send(ctx context.Context, f *frame) (err error) {
	end := outcome{err: errPanic}
	defer c.next(false)                        // also after a panic, so that others do not wait for ever
	defer func() { err = c.account(f, end) }() // also after a panic: others may have seen the numbers
	end = c.transmit(ctx, f, nil)
	return nil
}

// next begins to send the frame that has gathered, or gives up the turn, which
// the caller holds. With theirs, it runs on a goroutine of the adapter, and
// must not ask the adapter for its health.
func (c *Channel) next(theirs bool) {
	for {
		c.mu.Lock()
		f, expired := c.box.Next(time.Now())
		c.mu.Unlock()
		for _, old := range expired {
			c.number(old) // they are used again, unless the frame is delivered here
			err := context.DeadlineExceeded
			if !theirs {
				err = c.env.WithHealth(err)
			}
			c.tell(old, c.account(old, outcome{unsent: true, err: unsent.Mark(err, true)}))
			c.owner.Release(len(old.Waiters.acks))
		}
		if f != nil {
			c.start(f)
			return
		}
		if len(expired) == 0 {
			return
		}
	}
}

// number gives a frame the channel's next numbers. The caller holds the turn.
func (c *Channel) number(f *frame) { c.box.Number(f, c.env.Hub, c.env.NewStream, time.Now()) }

// start begins to send a frame, and returns. All of the frame's publishers may
// leave before it has arrived, so start holds the channel until then. The
// caller holds the turn, which start takes over.
func (c *Channel) start(f *frame) {
	c.Hold()
	c.number(f)
	if (!c.Keeps() || f.Notice()) && c.env.Async != nil && c.handOver(f) {
		return
	}
	c.env.Go(func() { c.sendInBackground(f, nil) })
}

// handOver gives a frame to an adapter that does not wait, and reports whether
// the adapter took it. An adapter that panics may have taken it.
func (c *Channel) handOver(f *frame) (taken bool) {
	panics := true
	defer func() {
		if panics {
			c.sending = nil
			c.finish(f, c.account(f, outcome{err: errPanic}), true)
		} else if !taken {
			c.sending = nil
		}
	}()
	c.sending = f
	taken = c.env.Async.PublishAsync(c.name, f.Bytes(), c)
	panics = false
	return taken
}

// Complete implements adapter.Completion: the frame that was handed over has
// arrived, or not.
func (c *Channel) Complete(receivers int, err error) {
	f := c.sending
	c.sending = nil
	if err != nil {
		// The adapter's Close returns after this has, and the hub waits for its
		// goroutines after that.
		c.env.Go(func() { c.sendInBackground(f, err) })
		return
	}
	c.finish(f, c.account(f, outcome{receivers: receivers}), true)
}

// sendInBackground sends a frame, waits for the outcome, and finishes it, in a
// goroutine of the hub's. The failed parameter is the error of a first attempt,
// if there was one. The caller holds the turn, which is passed on.
func (c *Channel) sendInBackground(f *frame, failed error) {
	ends := f.Ends()
	if ends.IsZero() {
		ends = f.Numbered().Add(c.env.Timeout)
	}
	ctx, cancel := context.WithDeadline(c.env.Context, ends)
	defer cancel()
	c.mu.Lock()
	f.Waiters.cancel = cancel
	if c.abandoned(f) {
		cancel()
	}
	c.mu.Unlock()
	c.finish(f, c.account(f, c.transmit(ctx, f, failed)), false)
}

// finish tells the publishers of a frame what became of it, and passes on the
// turn, which the caller holds: on a goroutine of the adapter's (theirs), or of
// the hub's.
func (c *Channel) finish(f *frame, err error, theirs bool) {
	c.tell(f, err)
	c.next(theirs)
	c.owner.Release(1 + len(f.Waiters.acks))
}

// tell tells the publishers of a frame what became of it.
func (c *Channel) tell(f *frame, err error) {
	f.Forget() // since its acks may be kept for a long time
	w := &f.Waiters
	if w.done != nil {
		w.err = err
		close(w.done)
	}
	if len(w.acks) > 0 {
		c.env.Publishers.Tell(w.acks, c.wrap(err))
	}
}

// An outcome is what became of a frame.
type outcome struct {
	receivers int
	unsent    bool // after an error: no attempt can have arrived
	err       error
}

// account counts a frame if it has arrived, notes whether its numbers are used
// up, and returns the error for its publishers. The caller holds the turn.
func (c *Channel) account(f *frame, end outcome) error {
	if f.Notice() {
		f.Waiters.receivers = end.receivers
		if end.err == nil && len(f.Waiters.acks) > 0 { // it is a message of PublishUnkeptAsync
			c.env.Published.Add(1)
			c.env.Frames.Add(1)
		}
		return end.err
	}
	if end.err == nil {
		c.box.Done(f, outbox.Taken)
		c.env.Published.Add(uint64(f.Count()))
		c.env.Frames.Add(1)
		if end.receivers == 0 && c.inbox {
			return ErrNoReceiver
		}
		return nil
	}
	result := outbox.Uncertain
	if end.unsent {
		result = outbox.Unsent
	}
	if c.fallsBack() {
		c.owner.DeliverFrame(f.Bytes())
		result = outbox.Uncertain // members have seen these numbers
		end.err = fmt.Errorf("%w: %w", ErrLocalOnly, unsent.Hide(end.err))
	}
	c.box.Done(f, result)
	return end.err
}
