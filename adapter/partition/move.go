package partition

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/partition/internal/locate"
)

const (
	// moveTimeout bounds finding a room's history and copying it.
	moveTimeout = 30 * time.Second
	// askTimeout bounds reading at a partition that may not have the history.
	askTimeout = time.Second
	// movePage and moveBytes bound a page that is copied.
	movePage  = 512
	moveBytes = 1 << 20
	// maxFiller is how many messages one filler stands for, as no frame may
	// have more.
	maxFiller = 1_000_000
	// maxPast is how many past epochs a record has.
	maxPast = 64
	// maxAge is the longest time that a backend keeps anything.
	maxAge = 366 * 24 * time.Hour
)

// mover is the publisher of copied frames. It is the same for all hubs, so each
// frame is kept once, however many hubs copy it.
const mover = "fanout.move"

// ensure returns the partition that has a room's history, and copies it there
// if it is elsewhere.
func (a *Adapter) ensure(ctx context.Context, v *view, name string, c channel, keep adapter.Retention) (home, error) {
	p, err := a.part(v.cur.pick(c.key))
	if err != nil {
		return home{}, err
	}
	if p.history == nil {
		return home{}, errNoHistory(p)
	}
	r := a.rooms.get(name)
	if h, ok := a.rooms.lookup(r, p, time.Now()); ok {
		return h, nil
	}
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return home{}, context.Cause(ctx)
	case <-a.ctx.Done():
		return home{}, adapter.ErrClosed
	}
	defer func() { <-r.turn }()
	if h, ok := a.rooms.lookup(r, p, time.Now()); ok {
		return h, nil
	}
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	m := &move{adapter: a, view: v, name: name, channel: c, keep: keep}
	line, err := m.find(ctx, p)
	if err != nil {
		return home{}, err
	}
	return a.rooms.found(r, v, p, line, keep), nil
}

// A move finds a room's history, and moves it.
type move struct {
	adapter *Adapter
	view    *view
	name    string
	channel channel
	keep    adapter.Retention
}

// find returns the lineage of the history at its home.
func (m *move) find(ctx context.Context, p *part) (lineage, error) {
	here, age, err := m.site(ctx, p)
	if err != nil {
		return lineage{}, err
	}
	if locate.Here(&here.has, m.done(&here.line), m.view.old != nil) == locate.Use {
		if here.line.Set > 0 && age > reload {
			return m.note(ctx, p, &here.line, here.number)
		}
		return here.line, nil
	}
	others, must, unread, err := m.elsewhere(ctx, p)
	if err != nil {
		return lineage{}, err
	}
	q := locate.Question{Home: here.has, Must: must, Unread: unread}
	for _, s := range others {
		q.Others = append(q.Others, s.has)
	}
	switch d := locate.Decide(&q); d.Action {
	case locate.Wait:
		return lineage{}, unread[d.Unread]
	case locate.Copy:
		return m.alone(ctx, p, func(c *claim) (lineage, error) {
			return m.copy(ctx, c, &others[d.From], &here, others, d.Stale)
		})
	case locate.Anew:
		return m.alone(ctx, p, func(*claim) (lineage, error) { return m.anew(ctx, &here, others) })
	case locate.Note:
		m.leave(ctx, others, p.name)
		here.line.Era, here.line.Set, here.line.Left = m.view.era, m.view.epoch, ""
		return m.note(ctx, p, &here.line, here.number)
	}
	return here.line, nil
}

// done reports whether a record says that the history has moved as the view
// asks for. Of a record of another era it is not known.
func (m *move) done(line *lineage) bool { return line.Era == m.view.era && line.Set >= m.view.epoch }

// copy copies a history to its home, and returns its lineage there. Stale says
// that the history went on elsewhere, and that is lost.
func (m *move) copy(ctx context.Context, c *claim, from, to *site, others []site, stale bool) (lineage, error) {
	top, err := to.part.history.History(ctx, m.name, adapter.Query{Keep: m.keep, Time: time.Now()})
	if err != nil {
		return lineage{}, err
	}
	at := top.Head.Offset // up to here the home has the same messages
	q := adapter.Query{Limit: movePage, Bytes: moveBytes, Keep: m.keep, Time: time.Now()}
	var page adapter.Page
	for more := true; more; more = page.More {
		if page, err = from.read(ctx, m.name, q); err != nil {
			return lineage{}, err
		}
		if more = page.More && len(page.Frames) > 0; q.Since.IsZero() {
			q.Since.Offset = page.First - 1
		}
		before := q.Since.Offset
		for _, f := range page.Frames {
			if f.At.Offset > at {
				if err = m.fill(ctx, c, from, &at, before); err == nil {
					err = m.append(ctx, c, from, &at, f)
				}
				if err != nil {
					return lineage{}, err
				}
			}
			before, q.Since = f.At.Offset, f.At
		}
		if !more {
			break
		}
	}
	if err := m.fill(ctx, c, from, &at, page.Head.Offset); err != nil {
		return lineage{}, err
	}
	m.leave(ctx, others, to.part.name)
	if stale {
		return m.settle(ctx, to, &page, aheadOfAll())
	}
	return m.settle(ctx, to, &page, 0)
}

// aheadOfAll returns an epoch that comes after all that were given out, as far
// as clocks of servers and hubs do not differ by more than a minute.
func aheadOfAll() uint64 { return uint64(time.Now().Add(time.Minute).UnixMilli()) }

// anew begins a part of the history whose positions come after all that were
// given out, after what a partition has, since the rest is lost.
func (m *move) anew(ctx context.Context, here *site, others []site) (lineage, error) {
	top, err := here.part.history.History(ctx, m.name, adapter.Query{Keep: m.keep, Time: time.Now()})
	if err != nil {
		return lineage{}, err
	}
	page := adapter.Page{Head: here.has.Head}
	switch {
	case !here.has.Partial:
		page.Head, page.Before = here.line.chain(&top)
	case here.has.Head.Epoch == 0: // its last entry is a filler, which has no epoch
		page.Head.Epoch = top.Head.Epoch
	}
	m.leave(ctx, others, here.part.name)
	return m.settle(ctx, here, &page, aheadOfAll())
}

// fill appends fillers for messages up to an offset.
func (m *move) fill(ctx context.Context, c *claim, from *site, at *uint64, until uint64) error {
	for *at < until {
		k := kept{kind: filler}
		n := min(until-*at, maxFiller)
		if err := m.keepAt(ctx, c, from, *at, n, &k); err != nil {
			return err
		}
		*at += n
	}
	return nil
}

// append copies a frame.
func (m *move) append(ctx context.Context, c *claim, from *site, at *uint64, f adapter.KeptFrame) error {
	k := kept{kind: moved, epoch: f.At.Epoch, time: time.Now().Add(-f.Age).UnixMilli(), frame: f.Frame}
	if err := m.keepAt(ctx, c, from, *at, f.At.Offset-*at, &k); err != nil {
		return err
	}
	*at = f.At.Offset
	return nil
}

// keepAt appends n messages after an offset, if the claim still holds. It fails
// if the history does not end where it was expected to. The next attempt first
// reads where it ends.
func (m *move) keepAt(ctx context.Context, c *claim, from *site, after, n uint64, k *kept) error {
	if mine, err := c.hold(ctx); err != nil || !mine {
		return cmp.Or(err, errOvertaken)
	}
	at, _, err := c.part.history.Append(ctx, m.name, adapter.Record{
		Frame: k.seal(), Messages: int(n), Keep: m.keep, Time: time.Now(),
		Publisher: mover, Stream: from.has.Head.Epoch, Seq: after + 1,
	})
	if err == nil && at.Offset != after+n {
		err = errOvertaken
	}
	return err
}

// settle notes that a history has been copied, up to the head of a page. The
// epochs that follow come after a floor; it is not 0 if messages are lost.
func (m *move) settle(ctx context.Context, to *site, page *adapter.Page, floor uint64) (lineage, error) {
	// Another hub may have been faster, and published.
	line, _, number, err := m.record(ctx, to.part)
	if err != nil || m.done(&line) {
		return line, err
	}
	top, err := to.part.history.History(ctx, m.name, adapter.Query{Keep: m.keep, Time: time.Now()})
	if err != nil {
		return lineage{}, err
	}
	if top.Head.Offset < page.Head.Offset {
		return lineage{}, errors.New("the new home has lost a part of what was copied")
	}
	line = lineage{Era: m.view.era, Set: m.view.epoch, Base: page.Head.Offset, Native: top.Head.Epoch}
	line.Past = append(slices.Clone(page.Before), adapter.PastEpoch{
		Epoch: page.Head.Epoch, Last: page.Head.Offset, Whole: floor == 0 && top.Head.Offset == page.Head.Offset,
	})
	if len(line.Past) > maxPast {
		line.Past = line.Past[len(line.Past)-maxPast:]
	}
	if floor = max(floor, page.Head.Epoch); floor >= line.Native {
		line.Shift = floor + 1 - line.Native
	}
	return m.note(ctx, to.part, &line, number)
}
