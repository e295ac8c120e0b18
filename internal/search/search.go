// Package search looks for a frame in a history, for adapters that stand on
// others: a backend that a room has moved to does not know how far the room's
// publishers have come, so it does not recognise a frame that is repeated.
package search

import (
	"context"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/wire"
)

const (
	// pageMessages and pageBytes bound a page.
	pageMessages = 512
	pageBytes    = 1 << 20
)

// Frame returns the position of a record's frame in a history, or the zero
// Position if the history does not have it. It reads from the oldest frame on
// that the record's retention keeps, page by page, until read returns an error
// or a page with nothing after it. ctx is that of the calls.
func Frame(ctx context.Context, r *adapter.Record, read func(context.Context, adapter.Query) (adapter.Page, error)) (adapter.Position, error) {
	q := adapter.Query{Limit: pageMessages, Bytes: pageBytes, Keep: r.Keep, Time: time.Now()}
	for {
		page, err := read(ctx, q)
		if err != nil {
			return adapter.Position{}, err
		}
		before := q.Since
		for _, f := range page.Frames {
			if wire.Same(f.Frame, r.Frame) {
				return f.At, nil
			}
			q.Since = f.At
		}
		if !page.More || !before.Before(q.Since) {
			return adapter.Position{}, nil
		}
	}
}
