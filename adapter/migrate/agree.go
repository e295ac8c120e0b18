package migrate

import (
	"bytes"
	"context"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// endsBefore reports whether the copy ends before an offset that the new
// history has. That is so if a hub that has only the new backend continued a
// part of the copy. It notes in c where the copy ends.
func (a *Adapter) endsBefore(ctx context.Context, channel string, keep adapter.Retention, c *historyCopy, epoch, at uint64) (bool, error) {
	agreed, unsure, err := a.agreedUpTo(ctx, channel, keep, c, epoch, at)
	if err != nil {
		return false, err
	}
	c.unsure = unsure
	if agreed == at {
		return false, nil
	}
	c.epoch, c.agreed = epoch, agreed
	return true, nil
}

// agreedUpTo returns the offset up to which the new history has the frames of
// the old one. It is at most the most parameter. It is unsure if the frames
// there cannot be compared: one of the histories no longer keeps them.
func (a *Adapter) agreedUpTo(ctx context.Context, channel string, keep adapter.Retention, c *historyCopy, epoch, most uint64) (agreed uint64, unsure bool, err error) {
	at := most // the last one is compared first: it is nearly always the same
	for most > 0 {
		found, err := a.compareAt(ctx, channel, keep, c, epoch, at)
		switch {
		case err != nil:
			return 0, false, err
		case found == different:
			most = at - 1
		default:
			agreed, unsure = at, found == unclear
		}
		if agreed >= most {
			return agreed, unsure, nil
		}
		at = agreed + (most-agreed+1)/2
	}
	return 0, false, nil
}

// A comparison is the result of comparing two histories at an offset.
type comparison uint8

const (
	same comparison = iota
	different
	unclear // one of the histories no longer keeps the frame
)

// compareAt compares what both histories have at an offset. A filler is the
// same as what the old history had.
func (a *Adapter) compareAt(ctx context.Context, channel string, keep adapter.Retention, c *historyCopy, epoch, at uint64) (comparison, error) {
	q := adapter.Query{Limit: 1, Keep: keep, Time: time.Now(), Since: c.positionOf(at - 1)}
	old, err := a.from.historian.History(ctx, channel, q)
	if err != nil {
		return unclear, err
	}
	if q.Since = (adapter.Position{}); at > 1 {
		q.Since = adapter.Position{Epoch: epoch, Offset: at - 1}
	}
	page, err := a.to.historian.History(ctx, channel, q)
	switch {
	case err != nil || len(page.Frames) == 0 || page.First > at:
		return unclear, err
	case isFiller(page.Frames[0].Frame):
		return same, nil
	case len(old.Frames) == 0 || old.First > at:
		return unclear, nil
	case !bytes.Equal(old.Frames[0].Frame, page.Frames[0].Frame):
		return different, nil
	}
	return same, nil
}
