package migrate

import (
	"context"
	"errors"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/search"
)

// A doubt is the last Append of a channel at the old backend, if it may or may
// not be kept. The new backend does not know how far publishers have come.
type doubt struct {
	publisher   string
	stream, seq uint64
}

func doubtOf(r *adapter.Record) doubt { return doubt{r.Publisher, r.Stream, r.Seq} }

// appended notes how an Append at the old backend ended. A doubt is remembered
// until its channel is appended to again, so there is at most one for each
// channel whose last Append this hub did not get an answer to.
func (c *copies) appended(channel string, r *adapter.Record, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		delete(c.doubts, channel)
	case r.Publisher == "": // it is never recognised
	case errors.Is(err, adapter.ErrUnsent):
		if c.doubts[channel] != doubtOf(r) { // otherwise an earlier attempt may have kept it
			delete(c.doubts, channel)
		}
	default:
		if c.doubts == nil {
			c.doubts = make(map[string]doubt)
		}
		c.doubts[channel] = doubtOf(r)
	}
}

// keptByOld returns where a frame is that the old backend has kept, if its
// publisher does not know that and repeats it after the flip. Its history has
// been copied. Zero: it has not kept it.
func (a *Adapter) keptByOld(ctx context.Context, channel string, r *adapter.Record) (at adapter.Position, err error) {
	a.copies.mu.Lock()
	d, ok := a.copies.doubts[channel]
	a.copies.mu.Unlock()
	if !ok {
		return at, nil
	}
	if d == doubtOf(r) {
		at, err = search.Frame(ctx, r, func(ctx context.Context, q adapter.Query) (adapter.Page, error) {
			return a.read(ctx, channel, q)
		})
		if err != nil {
			return at, err
		}
		if !at.IsZero() {
			return at, nil // the doubt stays: the answer may not reach the publisher
		}
	}
	a.copies.mu.Lock()
	delete(a.copies.doubts, channel)
	a.copies.mu.Unlock()
	return at, nil
}
