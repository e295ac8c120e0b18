package memory

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/archive"
)

// Append keeps the frame in the memory of the bus, and is Publish otherwise.
func (a *Adapter) Append(ctx context.Context, channel string, r adapter.Record) (at adapter.Position, receivers int, err error) {
	return a.publish(ctx, channel, r.Frame, &archive.Record{
		Frame: r.Frame, Messages: r.Messages, Keep: archive.Keep(r.Keep),
		Publisher: r.Publisher, Stream: r.Stream, Seq: r.Seq,
	})
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
	p := b.history.Read(channel, archive.Position(q.Since), q.Limit, q.Bytes, archive.Keep(q.Keep), time.Now())
	page := adapter.Page{Head: adapter.Position(p.Head), First: p.First, More: p.More}
	for _, past := range p.Before {
		page.Before = append(page.Before, adapter.PastEpoch(past))
	}
	for _, f := range p.Frames {
		page.Frames = append(page.Frames, adapter.KeptFrame{At: adapter.Position(f.At), Frame: f.Data, Age: f.Age})
	}
	return page, nil
}

// sweep drops what has expired of the histories, in the bus's own time.
func (b *Bus) sweep() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweepLocked()
}

// sweepLocked is sweep, and sees to the next one. A bus without adapters waits
// until it has one again: it may be forgotten by then.
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
