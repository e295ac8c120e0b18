package memory

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// Append keeps the frame in the memory of the bus; otherwise it is like
// Publish.
func (a *Adapter) Append(ctx context.Context, channel string, r adapter.Record) (at adapter.Position, receivers int, err error) {
	return a.publish(ctx, channel, r.Frame, &r)
}

// History returns at once, unless a [Reader] waits. While the link is cut it
// fails with an error that wraps [ErrCut].
func (a *Adapter) History(ctx context.Context, channel string, q adapter.Query) (page adapter.Page, err error) {
	if f := a.bus.reader.Load(); f != nil {
		var failed error
		err = a.call(ctx, func(ctx context.Context) { failed = (*f)(ctx, channel, q) })
		if err == nil {
			err = failed
		}
	}
	if err == nil {
		page, err = a.readHistory(ctx, channel, q)
	}
	if err != nil {
		return page, fmt.Errorf("memory: history of %q: %w", channel, err)
	}
	return page, nil
}

func (a *Adapter) readHistory(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	b := a.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case a.closed:
		return adapter.Page{}, adapter.ErrClosed
	case ctx.Err() != nil:
		return adapter.Page{}, ctx.Err()
	case a.link == cut || a.link == cutInbound:
		return adapter.Page{}, ErrCut
	}
	return b.history.Read(channel, q.Since, q.Limit, q.Bytes, q.Keep, time.Now()), nil
}

// sweep drops history that has expired, when the timer of the bus fires.
func (b *Bus) sweep() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweepLocked()
}

// sweepLocked is sweep; it also sets the timer. Without adapters it sets none,
// so that the bus can be collected; NewAdapter calls it again.
func (b *Bus) sweepLocked() {
	next := b.history.Sweep(time.Now())
	switch {
	case next.IsZero() || len(b.adapters) == 0:
		if b.sweeper != nil {
			b.sweeper.Stop()
		}
	case b.sweeper == nil:
		b.sweeper = time.AfterFunc(time.Until(next), b.sweep)
	default:
		b.sweeper.Reset(time.Until(next))
	}
}
