package partition

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/search"
)

// Append keeps the frame on the room's partition. The first call for a room
// that has moved copies its history first.
func (a *Adapter) Append(ctx context.Context, name string, r adapter.Record) (at adapter.Position, receivers int, err error) {
	c := parse(name)
	v, calls, err := a.enter(ctx, c)
	if err != nil {
		return at, 0, fmt.Errorf("partition: publish to %q: %w", name, adapter.Unsent(err))
	}
	defer calls.Done()
	room, err := a.ensure(ctx, v, name, c, r.Keep)
	if err != nil {
		return at, 0, fmt.Errorf("partition: publish to %q: %w", name, adapter.Unsent(err))
	}
	if at, ok := room.resolvedBefore(&r); ok {
		return at, -1, nil
	}
	if a.rooms.doubted(name, room.part, &r) {
		// The old home could not be asked in time.
		at, err := search.Frame(ctx, &r, func(ctx context.Context, q adapter.Query) (adapter.Page, error) {
			return room.read(ctx, name, q)
		})
		if err != nil {
			return at, 0, fmt.Errorf("partition: publish to %q: %w", name, adapter.Unsent(err))
		}
		if !at.IsZero() {
			a.rooms.appended(name, room.part, &r, at, nil)
			return at, -1, nil
		}
	}
	if room.line.Shift > 0 {
		k := kept{kind: shifted, shift: room.line.Shift, frame: r.Frame}
		r.Frame = k.seal()
	}
	at, receivers, err = room.part.history.Append(ctx, name, r)
	if err == nil {
		at = room.line.global(at)
	}
	a.rooms.appended(name, room.part, &r, at, err)
	if err != nil {
		return at, 0, err // the partition's error says whether it was kept
	}
	return at, receivers, nil
}

// History reads the history on the room's partition. The first call for a room
// that has moved copies it first.
func (a *Adapter) History(ctx context.Context, name string, q adapter.Query) (page adapter.Page, err error) {
	if err = a.awaitLearned(ctx); err == nil {
		a.mu.RLock()
		v := a.view
		a.mu.RUnlock()
		var room home
		if room, err = a.ensure(ctx, v, name, parse(name), q.Keep); err == nil {
			page, err = room.read(ctx, name, q)
		}
	}
	if err != nil {
		return adapter.Page{}, fmt.Errorf("partition: history of %q: %w", name, err)
	}
	return page, nil
}

// A lineage says how the positions of a history that has moved follow from
// those that its partition gives. Offsets are the same.
type lineage struct {
	Era    uint64              `json:"era,omitempty"`  // of Set
	Set    uint64              `json:"set"`            // the epoch of the set in which it moved
	Base   uint64              `json:"base"`           // the offset of the last message before the move
	Native uint64              `json:"native"`         // the partition's epoch at that time
	Shift  uint64              `json:"shift"`          // is added to the partition's epochs
	Past   []adapter.PastEpoch `json:"past"`           // before the move
	Left   string              `json:"left,omitempty"` // the partition to which it has gone from here; Set is 0 then
}

// global returns the position of a message of a hub that is at a position on
// the partition.
func (l *lineage) global(at adapter.Position) adapter.Position {
	if at.Offset <= l.Base && at.Epoch <= l.Native {
		for _, past := range l.Past {
			if at.Offset <= past.Last {
				return adapter.Position{Epoch: past.Epoch, Offset: at.Offset}
			}
		}
	}
	if !at.IsZero() {
		at.Epoch += l.Shift
	}
	return at
}

// chain returns the head and the past epochs of a page of the partition.
func (l *lineage) chain(p *adapter.Page) (head adapter.Position, before []adapter.PastEpoch) {
	if len(l.Past) == 0 {
		return l.global(p.Head), p.Before
	}
	if p.Head.IsZero() {
		return p.Head, nil // the partition has lost it
	}
	lowest := p.Head.Offset
	var own []adapter.PastEpoch
	for _, past := range p.Before {
		if past.Epoch < l.Native {
			continue // an epoch from before the move, or from while the history was being copied
		}
		lowest = min(lowest, past.Last)
		past.Epoch += l.Shift
		own = append(own, past)
	}
	if !l.continues(p) {
		return adapter.Position{Epoch: p.Head.Epoch + l.Shift, Offset: p.Head.Offset}, own
	}
	for _, past := range l.Past {
		if past.Last > lowest { // the partition has lost what was copied
			before = append(before, adapter.PastEpoch{Epoch: past.Epoch, Last: lowest})
			continue
		}
		before = append(before, past)
	}
	if len(own) == 0 && p.Head.Offset <= l.Base && p.Head.Epoch == l.Native {
		last := before[len(before)-1] // nothing was published since it moved
		return adapter.Position{Epoch: last.Epoch, Offset: last.Last}, before[:len(before)-1]
	}
	return adapter.Position{Epoch: p.Head.Epoch + l.Shift, Offset: p.Head.Offset}, append(before, own...)
}

// continues reports whether a page continues the history that was moved. It
// does not if the partition has lost that history and begun anew.
func (l *lineage) continues(p *adapter.Page) bool {
	return p.Head.Epoch <= l.Native || slices.ContainsFunc(p.Before, func(past adapter.PastEpoch) bool {
		return past.Epoch <= l.Native
	})
}

// A home is a partition that has a room's history.
type home struct {
	part     *part
	line     lineage
	resolved resolved
}

// native returns the partition's position from which to read what comes after
// since, with the head of a page and the epochs before it.
func (h *home) native(since adapter.Position, p *adapter.Page) adapter.Position {
	if since.IsZero() {
		return since
	}
	head, before := h.line.chain(p)
	from := uint64(0)
	switch i := slices.IndexFunc(before, func(past adapter.PastEpoch) bool { return past.Epoch == since.Epoch }); {
	case since.Epoch == head.Epoch:
		from = since.Offset
	case i >= 0:
		from = min(since.Offset, before[i].Last)
	case since.Epoch > head.Epoch:
		from = head.Offset
	default: // its epoch is not known: read what came in later epochs
		for _, past := range before {
			if past.Epoch < since.Epoch {
				from = past.Last
			}
		}
	}
	for _, past := range p.Before {
		if from <= past.Last {
			return adapter.Position{Epoch: past.Epoch, Offset: from}
		}
	}
	return adapter.Position{Epoch: p.Head.Epoch, Offset: from}
}

// read reads a page, with the positions that hubs know.
func (h *home) read(ctx context.Context, name string, q adapter.Query) (adapter.Page, error) {
	if len(h.line.Past) == 0 {
		return h.part.history.History(ctx, name, q)
	}
	native := q
	native.Limit, native.Since = 0, adapter.Position{}
	top, err := h.part.history.History(ctx, name, native)
	if err != nil {
		return top, err
	}
	native.Since = h.native(q.Since, &top)
	page := adapter.Page{First: 1}
	for first := true; ; first = false {
		native.Limit = q.Limit
		part, err := h.part.history.History(ctx, name, native)
		if err != nil {
			return adapter.Page{}, err
		}
		page.Head, page.Before = h.line.chain(&part)
		if first {
			page.First = part.First
		}
		h.take(&page, part.Frames, q.Keep)
		page.More = part.More
		if !part.More || len(page.Frames) > 0 || len(part.Frames) == 0 {
			break
		}
		native.Since = part.Frames[len(part.Frames)-1].At // all were fillers
	}
	if q.Limit > 0 && len(page.Frames) == 0 {
		page.First = page.Head.Offset + 1
	}
	return page, nil
}

// take adds frames of the partition to a page, without fillers and what is too
// old.
func (h *home) take(page *adapter.Page, frames []adapter.KeptFrame, keep adapter.Retention) {
	for _, f := range frames {
		k, ok := openKept(f.Frame)
		offset := f.At.Offset
		switch {
		case !ok || k.kind == shifted:
			f.At.Epoch += k.shift
		case k.kind == moved:
			f.At.Epoch = k.epoch
			f.Age = max(0, time.Since(time.UnixMilli(k.time)))
		}
		if ok && k.kind >= filler || f.Age > keep.Age || !has(page, f.At) {
			if len(page.Frames) == 0 {
				page.First = offset + 1
			}
			continue
		}
		f.Frame = k.frame
		page.Frames = append(page.Frames, f)
	}
}

// has reports whether a history has gone through a position.
func has(p *adapter.Page, at adapter.Position) bool {
	if at.Epoch == p.Head.Epoch {
		return at.Offset <= p.Head.Offset
	}
	return slices.ContainsFunc(p.Before, func(past adapter.PastEpoch) bool {
		return past.Epoch == at.Epoch && at.Offset <= past.Last
	})
}

// errNoHistory is why a room with a history cannot be on a partition.
func errNoHistory(p *part) error {
	return fmt.Errorf("partition %q: %w: its adapter keeps no histories", p.name, adapter.ErrRefused)
}
