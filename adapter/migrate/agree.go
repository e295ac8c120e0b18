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
	agreed, err := a.agreedUpTo(ctx, channel, keep, c, epoch, at)
	if err != nil || agreed == at {
		return false, err
	}
	c.epoch, c.agreed = epoch, agreed
	return true, nil
}

// agreedUpTo returns the offset up to which the new history has the frames of
// the old one. It is at most the most parameter.
func (a *Adapter) agreedUpTo(ctx context.Context, channel string, keep adapter.Retention, c *historyCopy, epoch, most uint64) (uint64, error) {
	least, at := uint64(0), most // the last one is compared first: it is nearly always the same
	for most > 0 {
		same, err := a.sameAt(ctx, channel, keep, c, epoch, at)
		switch {
		case err != nil:
			return 0, err
		case same:
			least = at
		default:
			most = at - 1
		}
		if least >= most {
			return least, nil
		}
		at = least + (most-least+1)/2
	}
	return 0, nil
}

// sameAt reports whether both histories have the same frame at an offset. If
// one of them has trimmed it, they count as having the same.
func (a *Adapter) sameAt(ctx context.Context, channel string, keep adapter.Retention, c *historyCopy, epoch, at uint64) (bool, error) {
	q := adapter.Query{Limit: 1, Keep: keep, Time: time.Now(), Since: c.positionOf(at - 1)}
	old, err := a.from.historian.History(ctx, channel, q)
	if err != nil {
		return false, err
	}
	if q.Since = (adapter.Position{}); at > 1 {
		q.Since = adapter.Position{Epoch: epoch, Offset: at - 1}
	}
	page, err := a.to.historian.History(ctx, channel, q)
	if err != nil || len(old.Frames) == 0 || len(page.Frames) == 0 ||
		old.First > at || page.First > at || isFiller(page.Frames[0].Frame) {
		return true, err
	}
	return bytes.Equal(old.Frames[0].Frame, page.Frames[0].Frame), nil
}
