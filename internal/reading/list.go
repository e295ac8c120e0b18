package reading

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/follow"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/replay"
)

// An AheadError says that a position is ahead of the history.
type AheadError struct{ At, Head adapter.Position }

// Error implements error.
func (e *AheadError) Error() string {
	return fmt.Sprintf("%v is ahead of the history, which is at %v", e.At, e.Head)
}

// List returns what was kept after since, at most limit messages; 0 means that
// there is no limit. It asks the backend even if the hub has the messages,
// because newer ones of other hubs may not have come yet. While the backend
// cannot be reached List tries again, until ctx ends.
func (h *History[H, W]) List(ctx context.Context, since adapter.Position, limit int) (*replay.Listing[item.Entry], error) {
	list := replay.NewListing[item.Entry](since, limit)
	for done := false; !done; {
		at, left := list.Next()
		page, err := h.ask(ctx, at, left)
		if err != nil {
			return nil, err
		}
		if list.Ahead(page.Head) {
			return nil, &AheadError{At: since, Head: page.Head}
		}
		done = list.Add(h.host.Reader().decode(h.host.Channel(), at, &page))
	}
	return list, nil
}

// ask reads a page, and tries again until it is there or is refused.
func (h *History[H, W]) ask(ctx context.Context, since adapter.Position, limit int) (adapter.Page, error) {
	reader := h.host.Reader()
	if limit <= 0 || limit > follow.PageMessages {
		limit = follow.PageMessages
	}
	for delay := retry(0); ; {
		page, err := reader.page(ctx, h.host.Channel(), adapter.Query{Since: since, Limit: limit, Keep: h.Keep, Time: time.Now()})
		o, err := judge(&page, since, err)
		if o == read || o == refused {
			return page, err
		}
		delay = delay.after(o)
		if !backoff.Sleep(ctx, time.Duration(delay)) {
			return page, reader.Explain(fmt.Errorf("%w (last: %w)", context.Cause(ctx), err))
		}
	}
}

// isClosed reports whether a reading has failed because the adapter has closed.
func isClosed(err error) bool { return errors.Is(err, adapter.ErrClosed) }
