package reading

import (
	"context"
	"time"
	"unique"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/sequence"
	"github.com/fanoutgo/fanout/internal/work"
)

// Page is a page that was read for members.
type Page = replay.Page[item.Entry]

// A Reader is what the histories of a hub have in common: the backend, the
// pool of readings, and those that are told of what was read. Its fields are
// set before the first room has a history. The functions are called without
// locks, from any goroutine, and do not wait.
type Reader struct {
	Context   context.Context // ends when the hub has closed
	Historian adapter.Historian
	Pool      *work.Pool
	Home      *item.Home

	// Counted is called for each reading.
	Counted func()
	// Believed reports whether an epoch is believable: not too far in the future.
	Believed func(epoch uint64) bool
	// Malformed is told of a frame that cannot be read.
	Malformed func(channel string, err error)
	// NotUnderstood is told of messages that cannot be delivered.
	NotUnderstood func(channel string, n batch.NotUnderstood)
	// Unreadable is told of a history that cannot be read.
	Unreadable func(room string, err error)
	// Explain adds to an error what the adapter knows of the backend.
	Explain func(error) error
}

// page asks the backend for one page.
func (r *Reader) page(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	r.Counted()
	page, err := r.Historian.History(ctx, channel, q)
	if err == nil {
		err = history.Check(&page, q.Since, r.Believed)
	}
	return page, err
}

// decode makes a page for members of what the backend has returned for since.
func (r *Reader) decode(channel string, since adapter.Position, read *adapter.Page) *Page {
	p, now := replay.NewPage[item.Entry](since, read), clock.Now()
	for _, f := range read.Frames {
		r.decodeFrame(p, channel, f, now)
	}
	p.End()
	return p
}

func (r *Reader) decodeFrame(p *Page, channel string, f adapter.KeptFrame, now int64) {
	var b batch.KeptFrame
	err := batch.OpenKept(&b, f, now)
	if err != nil {
		r.Malformed(channel, err)
	}
	p.Frame(b.First, f.At, err != nil)
	sender := ""
	if b.Header.Count > 0 {
		sender = unique.Make(sequence.HubID(b.Header.Hub)).Value()
	}
	var u batch.Unpacker
	batch.UnpackKept(&u, &b, r.Home, 0, sender)
	for u.Read() {
		if u.Understood() {
			p.Add(u.Entry(), b.Body.Since)
			continue
		}
		n := u.TakeNotUnderstood()
		r.NotUnderstood(channel, n)
		p.Miss(n.At)
	}
}

// query is the query for what members get after since.
func query(since adapter.Position, keep adapter.Retention) adapter.Query {
	return adapter.Query{
		Since: since, Limit: replay.PageMessages, Bytes: replay.PageBytes,
		Keep: keep, Time: time.Now(),
	}
}
