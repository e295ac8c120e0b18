package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/item"
)

// history checks a position that a user gives, and makes it the backend's.
func (rs *roomState) history(since Position) (adapter.Position, error) {
	switch {
	case rs.invalid != nil:
		return adapter.Position{}, rs.invalid.error
	case rs.kept == nil:
		return adapter.Position{}, fmt.Errorf("%w: Options.Room gives it no Retain", ErrNoHistory)
	}
	return since.of(rs.kept.mark)
}

// past returns messages after since, as Room.History does. It asks the backend
// also where the hub has them: what others have published may not be here yet.
func (rs *roomState) past(ctx context.Context, since adapter.Position, limit int) ([]Message, error) {
	k := rs.kept
	if _, ok := ctx.Deadline(); !ok {
		var hold deadline.Hold
		ctx, hold = rs.hub.publishes.Bound(ctx)
		defer hold.Release()
	}
	var entries []item.Entry
	var info adapter.Page // without frames: the state of the history
	at, missed, absurd := since, 0, false
	for first := true; ; first = false {
		read, err := rs.ask(ctx, at, limit-len(entries))
		if err != nil {
			return nil, err
		}
		if first && since.Epoch == read.Head.Epoch && since.Offset > read.Head.Offset {
			return nil, fmt.Errorf("%w: %v is ahead of the room's history, which is at %v",
				ErrInvalidPosition, public(since, k.mark), public(read.Head, k.mark))
		}
		p := rs.newPage(at, &read)
		if first || p.from != at { // what was between has been trimmed meanwhile, or the history has changed
			entries, missed, absurd, info = nil, 0, false, p.info
		} else { // the first page says what was trimmed before, the last where it ends
			info.Head, info.Before = p.info.Head, p.info.Before
		}
		entries = append(entries, p.entries...)
		for _, bad := range p.bad {
			n, beyond := bad.missedAfter(0)
			missed, absurd = missed+n, absurd || beyond
		}
		at = p.end
		if p.last || (limit > 0 && len(entries) >= limit) {
			if !p.last {
				info.Head = p.end
			}
			break
		}
	}
	messages := rs.messages(entries, limit)
	if a := history.Compare(&info, since); !since.IsZero() || missed > 0 || absurd {
		doubt := absurd || !since.IsZero() && (a.Lost || !history.Whole(&info, a.Epoch, info.Head.Epoch, 0))
		if missed += a.Missed; missed > 0 || doubt {
			return messages, &GapError{Room: rs.name, Missed: missed, Unknown: doubt}
		}
	}
	return messages, nil
}

// ask reads a page, and again while the backend cannot be reached or announces
// more without giving it. A limit of 0
// or less is none.
func (rs *roomState) ask(ctx context.Context, since adapter.Position, limit int) (adapter.Page, error) {
	delay := firstRetry
	if limit <= 0 || limit > pageMessages {
		limit = pageMessages
	}
	for {
		page, err := rs.hub.readPage(ctx, rs.channel, adapter.Query{Since: since, Limit: limit, Keep: rs.kept.keep, Time: time.Now()})
		if err == nil && !history.Progresses(&page, since) {
			err, delay = errNoProgress, max(delay, firstDoubt)
		}
		if err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrClosed) {
			return page, err
		}
		sleep(ctx, delay)
		delay = min(2*delay, lastRetry)
		if ctx.Err() != nil {
			return page, rs.hub.withHealth(fmt.Errorf("%w (last: %w)", context.Cause(ctx), err))
		}
	}
}

// messages makes messages of entries.
func (rs *roomState) messages(entries []item.Entry, limit int) []Message {
	if limit > 0 && len(entries) > limit {
		entries = entries[:limit]
	}
	list := make([]Message, len(entries))
	for i, e := range entries {
		list[i] = Message{Room: rs.name, Data: e.Data, Sender: e.Sender, Position: public(e.At, rs.kept.mark)}
	}
	return list
}
