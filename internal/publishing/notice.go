package publishing

import (
	"context"
	"time"

	"github.com/fanoutgo/fanout/internal/async"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/wire"
)

// Notify sends a notice when it has the turn, and waits until the backend has
// taken it. It returns the number of hubs that got the notice, or -1 if the
// backend does not count them. A notice has no number, and goes into no
// history.
func (c *Channel) Notify(ctx context.Context, notice []byte) (receivers int, err error) {
	f := outbox.NewNotice[waiters](notice)
	w := &f.Waiters
	if err := c.check(ctx); err != nil {
		return 0, err
	}
	c.mu.Lock()
	if c.box.Begin() {
		c.mu.Unlock()
		c.number(f)
		err = c.send(ctx, f)
		return w.receivers, c.wrap(err)
	}
	w.count, w.done = 1, make(chan struct{})
	done := w.done
	c.box.Queue(f)
	c.mu.Unlock()
	select {
	case <-done:
		return w.receivers, c.wrap(w.err)
	case <-ctx.Done():
		c.withdraw(f, outbox.Span{})
		return 0, c.wrap(context.Cause(ctx))
	}
}

// PublishUnkept sends a message that goes into no history, as a notice, and
// waits until the backend has taken it.
func (c *Channel) PublishUnkept(ctx context.Context, m *wire.Message) error {
	if _, ok := ctx.Deadline(); !ok {
		var hold deadline.Hold
		ctx, hold = c.env.Bounds.Bound(ctx)
		defer hold.Release()
	}
	_, err := c.Notify(ctx, c.unkept(m))
	if err == nil {
		c.env.Published.Add(1)
		c.env.Frames.Add(1)
	}
	return err
}

// PublishUnkeptAsync is PublishUnkept without waiting. Like PublishAsync, it
// ends a hold of the channel.
func (c *Channel) PublishUnkeptAsync(m *wire.Message, a async.Ack) {
	if err := c.check(context.Background()); err != nil {
		c.env.Publishers.Tell([]async.Ack{a}, err)
		c.Release()
		return
	}
	f := outbox.NewNotice[waiters](c.unkept(m))
	f.Waiters.acks = append(f.Waiters.one[:0], a)
	f.Expire(time.Now().Add(c.env.Timeout))
	c.mu.Lock()
	turn := c.box.Begin()
	if !turn {
		c.box.Queue(f)
	}
	c.mu.Unlock()
	if turn {
		c.start(f)
	}
}

// unkept returns the notice that carries a message. The message has an ID, by
// which members recognise it if it is sent again.
func (c *Channel) unkept(m *wire.Message) []byte {
	if m.ID == 0 {
		m.ID = c.env.NewCopyID()
	}
	var box outbox.Outbox[struct{}]
	f := outbox.NewFrame[struct{}](m.Size())
	f.Add(m)
	now := time.Now()
	box.Number(f, c.env.Hub, c.env.NewStream, now)
	return wire.AppendUnkept(nil, c.env.Hub, uint64(now.UnixMilli()), f.Bytes())
}
