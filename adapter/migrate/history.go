package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/flip"
	"github.com/fanoutgo/fanout/internal/backoff"
)

var errNoHistory = errors.New("a backend of the migration keeps no histories")

// Append appends to the history at the backend that the hubs publish to. After
// the flip, the first call for a channel copies its history.
func (a *Adapter) Append(ctx context.Context, channel string, r adapter.Record) (at adapter.Position, receivers int, err error) {
	old, err := a.enter(ctx)
	if err == nil {
		defer a.leave(old)
		if a.from.historian == nil || a.to.historian == nil {
			err = adapter.Unsent(fmt.Errorf("%w: %w", adapter.ErrRefused, errNoHistory))
		}
	}
	if err == nil {
		a.noteKeep(channel, r.Keep)
	}
	if err == nil && !old {
		if _, err = a.copyOf(ctx, channel, r.Keep); err == nil {
			at, err = a.keptByOld(ctx, channel, &r)
		}
		if err != nil {
			err = adapter.Unsent(err)
		}
	}
	if err != nil {
		return adapter.Position{}, 0, fmt.Errorf("migrate: append to %q: %w", channel, err)
	}
	if !at.IsZero() {
		return at, -1, nil
	}
	at, receivers, err = a.side(old).historian.Append(ctx, channel, r)
	if old {
		a.copies.appended(channel, &r, err)
	}
	return at, receivers, err
}

// History reads the history at the backend that the hubs publish to. It takes
// positions of the old backend after the flip, too.
func (a *Adapter) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	page, err := a.read(ctx, channel, q)
	if err != nil {
		return adapter.Page{}, fmt.Errorf("migrate: history of %q: %w", channel, err)
	}
	return page, nil
}

func (a *Adapter) read(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	if a.from.historian == nil || a.to.historian == nil {
		return adapter.Page{}, fmt.Errorf("%w: %w", adapter.ErrRefused, errNoHistory)
	}
	old, err := a.whichHistory(ctx)
	if err != nil {
		return adapter.Page{}, err
	}
	a.noteKeep(channel, q.Keep)
	if old {
		return a.from.historian.History(ctx, channel, q)
	}
	for {
		c, err := a.copyOf(ctx, channel, q.Keep)
		if err != nil {
			return adapter.Page{}, err
		}
		copied := q
		since, extends := c.translate(q.Since)
		copied.Since = since
		page, err := readWithoutFillers(ctx, a.to.historian, channel, copied)
		switch {
		case err != nil:
			return page, err
		case !c.in(&page):
			if a.copies.lose(channel, c) {
				_ = a.writeMark(ctx, channel, &historyCopy{}, markLost) // it is logged
			}
			continue // without the copy
		case extends:
			c.extend(&page)
		}
		return page, nil
	}
}

// whichHistory waits until it is known which history counts. While this hub
// pauses, others may have flipped and have published to the new one.
func (a *Adapter) whichHistory(ctx context.Context) (old bool, err error) {
	for {
		a.mu.RLock()
		phase, changed, closed := a.phase, a.changed, a.closed
		a.mu.RUnlock()
		switch {
		case closed:
			return false, adapter.ErrClosed
		case phase == flip.Flipped:
			return false, nil
		case phase == flip.Both:
			return true, nil
		}
		select {
		case <-changed:
		case <-a.life.Done():
		case <-ctx.Done():
			return false, fmt.Errorf("%w (%s)", context.Cause(ctx), a.Status().Waiting)
		}
	}
}

// readWithoutFillers reads a page and leaves out fillers, since the messages
// that they stand for are no longer kept.
func readWithoutFillers(ctx context.Context, h adapter.Historian, channel string, q adapter.Query) (adapter.Page, error) {
	for {
		page, err := h.History(ctx, channel, q)
		if err != nil {
			return page, err
		}
		n := 0
		for n < len(page.Frames) && isFiller(page.Frames[n].Frame) {
			n++
		}
		if n == 0 {
			return page, nil
		}
		last := page.Frames[n-1].At
		page.Frames = slices.Delete(page.Frames, 0, n)
		page.First = max(page.First, last.Offset+1)
		if len(page.Frames) > 0 || !page.More {
			return page, nil
		}
		q.Since = last
	}
}

// A historyCopy is where the history of a channel was at the old backend, and
// how much of it is at the new one.
type historyCopy struct {
	head   adapter.Position // at the old backend; zero: there was no history
	before []adapter.PastEpoch
	agreed uint64 // up to this offset both have the same
	unsure bool   // that could not be found out: see agreedUpTo
	epoch  uint64 // of the copy at the new backend
	marked bool   // the new backend says so
}

// in reports whether a history at the new backend still has the copy, or
// remembers its epoch.
func (c *historyCopy) in(page *adapter.Page) bool {
	return c.head.IsZero() || page.Head.Epoch == c.epoch ||
		slices.ContainsFunc(page.Before, func(p adapter.PastEpoch) bool { return p.Epoch == c.epoch })
}

// translate makes a position of the old backend one of the new. Extends says
// whether messages after it are shown with the old history's epochs. They are
// not if since is a position in the copy that was given out by a hub that has
// only the new backend.
func (c *historyCopy) translate(since adapter.Position) (_ adapter.Position, extends bool) {
	if c.head.IsZero() || since.IsZero() {
		return since, true
	}
	last, ok := c.last(since.Epoch)
	if !ok {
		return since, since.Epoch < c.epoch || since.Offset >= c.agreed
	}
	return adapter.Position{Epoch: c.epoch, Offset: min(since.Offset, last, c.agreed)}, true
}

// last returns the last offset of an epoch at the old backend.
func (c *historyCopy) last(epoch uint64) (last uint64, ok bool) {
	if epoch == c.head.Epoch {
		return c.head.Offset, true
	}
	for _, past := range c.before {
		if past.Epoch == epoch {
			return past.Last, true
		}
	}
	return 0, false
}

// extend gives the copies in a page of the new backend the positions that they
// had at the old one, and adds the epochs of the old backend to the page's
// earlier epochs.
func (c *historyCopy) extend(page *adapter.Page) {
	if c.head.IsZero() || page.Head.IsZero() {
		return
	}
	for i := range page.Frames {
		if f := &page.Frames[i]; f.At.Offset <= c.agreed && f.At.Epoch == c.epoch {
			f.At = c.positionOf(f.At.Offset)
		}
	}
	before := make([]adapter.PastEpoch, 0, len(c.before)+1+len(page.Before))
	for _, past := range append(slices.Clone(c.before), adapter.PastEpoch{Epoch: c.head.Epoch, Last: c.head.Offset, Whole: true}) {
		past.Whole = past.Whole && c.agreed >= past.Last && !c.unsure
		past.Last = min(past.Last, c.agreed)
		before = append(before, past)
	}
	page.Before = append(before, page.Before...)
}

// oldHead returns where the history of a channel ended at the old backend; zero
// if there is none.
func (a *Adapter) oldHead(ctx context.Context, channel string) (adapter.Position, error) {
	if a.from.historian == nil || a.to.historian == nil {
		return adapter.Position{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, drainIn/2)
	defer cancel()
	for pause := (backoff.Backoff{}); ; {
		page, err := a.from.historian.History(ctx, channel, adapter.Query{
			Keep: adapter.Retention{Messages: 1, Age: time.Hour}, Time: time.Now(),
		})
		if errors.Is(err, adapter.ErrRefused) {
			return adapter.Position{}, nil
		}
		if err == nil || !pause.Wait(ctx) {
			return page.Head, err
		}
	}
}
