package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/internal/deadline"
)

// history checks a position that a user gives, and makes it the backend's.
func (rs *roomState) history(since Position) (Position, error) {
	switch {
	case rs.invalid != nil:
		return Position{}, rs.invalid.error
	case rs.kept == nil:
		return Position{}, fmt.Errorf("%w: Options.Retain gives it none", ErrNoHistory)
	}
	return since.private(rs.kept.mark)
}

// past returns messages after since, as Room.History does. It asks the backend
// also where the hub has them: what others have published may not be here yet.
func (rs *roomState) past(ctx context.Context, since Position, limit int) ([]Message, error) {
	k := rs.kept
	if _, ok := ctx.Deadline(); !ok {
		var hold deadline.Hold
		ctx, hold = rs.hub.publishes.Bound(ctx)
		defer hold.Release()
	}
	f := flight{since: since}
	at, first := since, true
	for {
		page, err := rs.ask(ctx, at, limit-len(f.entries))
		if err != nil {
			return nil, err
		}
		if first && since.Epoch == page.Head.Epoch && since.Offset > page.Head.Offset {
			return nil, fmt.Errorf("%w: %v is ahead of the room's history, which is at %v",
				ErrInvalidPosition, since.public(k.mark), page.Head.public(k.mark))
		}
		f.add(rs.hub, k, &page, at, first)
		if !page.More || len(page.Frames) == 0 || (limit > 0 && len(f.entries) >= limit) {
			break
		}
		at, first = page.Frames[len(page.Frames)-1].At, false
	}
	messages := rs.messages(f.entries, limit)
	if a := f.page.after(since); !since.IsZero() {
		doubt := a.lost || !f.page.whole(a.epoch, f.page.Head.Epoch, 0)
		if a.missed > 0 || doubt {
			return messages, &GapError{Room: rs.name, Missed: a.missed, Unknown: doubt}
		}
	}
	return messages, nil
}

// ask reads a page, and again while the backend cannot be reached. A limit of 0
// or less is none.
func (rs *roomState) ask(ctx context.Context, since Position, limit int) (Page, error) {
	delay := firstRetry
	if limit <= 0 || limit > pageMessages {
		limit = pageMessages
	}
	for {
		page, err := rs.hub.readPage(ctx, rs.channel, Query{Since: since, Limit: limit, Keep: rs.kept.keep, Time: time.Now()})
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
func (rs *roomState) messages(entries []entry, limit int) []Message {
	if limit > 0 && len(entries) > limit {
		entries = entries[:limit]
	}
	list := make([]Message, len(entries))
	for i, e := range entries {
		list[i] = Message{Room: rs.name, Data: e.data, Sender: e.sender, Position: e.position}
	}
	return list
}
