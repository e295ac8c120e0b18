package fanout

import (
	"slices"
	"sort"
)

// A tail is the latest messages of a room that keeps a history, without a gap
// among them, for members that resume. Its slices are shared with those: what
// is in them is never changed, and they are made anew to be cut.
type tail struct {
	entries []entry
	times   []int64 // when each was kept, by our own clock: see ticks
	bytes   int
	start   Position // the backend's; what comes after it is here
	// whole: there is nothing before start, or it is not kept any more.
	whole bool
}

// reset empties the tail. Before the first message of a history there is nothing.
func (t *tail) reset(start Position) { *t = tail{start: start, whole: start.Offset == 0} }

// add appends messages. Volatile ones are not for those who come later.
func (t *tail) add(entries []entry, kept int64, w Window) {
	for i := range entries {
		if entries[i].volatile || entries[i].position.IsZero() {
			continue
		}
		t.entries = append(t.entries, entries[i])
		t.times = append(t.times, kept)
		t.bytes += len(entries[i].data)
	}
	if len(t.entries) > 2*w.Messages || t.bytes > 2*w.Bytes {
		t.cut(w)
	}
}

// cut drops the oldest, so that the rest is no more than a window.
func (t *tail) cut(w Window) {
	n := max(0, len(t.entries)-w.Messages)
	for _, e := range t.entries[:n] {
		t.bytes -= len(e.data)
	}
	for n < len(t.entries)-1 && t.bytes > w.Bytes {
		t.bytes -= len(t.entries[n].data)
		n++
	}
	if n == 0 {
		return
	}
	t.start = t.entries[n-1].private()
	t.entries = slices.Clone(t.entries[n:])
	t.times = slices.Clone(t.times[n:])
	t.whole = false
}

// private is the backend's position of an entry.
func (e *entry) private() Position {
	return Position{Epoch: e.position.Epoch >> markBits, Offset: e.position.Offset}
}

// since returns the messages after a position of the backend's, up to pos, if
// they are all here: those that keep allows to be handed out. The zero position
// asks for all that is kept.
func (t *tail) since(since, pos Position, keep Retention) (entries []entry, ok bool) {
	oldest := ticks() - keep.Age.Nanoseconds()
	if since.IsZero() {
		if !t.whole {
			return nil, false
		}
		i := sort.Search(len(t.entries), func(i int) bool {
			return t.entries[i].position.Offset+uint64(keep.Messages) > pos.Offset
		})
		for i < len(t.entries) && t.times[i] < oldest {
			i++
		}
		return t.entries[i:len(t.entries):len(t.entries)], true
	}
	if since.Before(t.start) || pos.Before(since) || pos.Offset > since.Offset+uint64(keep.Messages) {
		return nil, false
	}
	i := sort.Search(len(t.entries), func(i int) bool { return since.Before(t.entries[i].private()) })
	if i == len(t.entries) {
		// Nothing was said since, but since may lie on a way that the history
		// has not gone.
		return nil, since.Epoch == pos.Epoch || since == t.start
	}
	next := t.entries[i].private()
	if next.Epoch > since.Epoch && since.Offset >= next.Offset || t.times[i] < oldest {
		return nil, false
	}
	return t.entries[i:len(t.entries):len(t.entries)], true
}

// extend puts what was read before the tail, if it reaches it. pos is where the
// tail ends.
func (t *tail) extend(f *flight, pos Position, w Window) {
	head := f.page.Head
	if head.Before(t.start) || len(f.entries) == 0 || !f.from.Before(t.start) {
		return
	}
	first, start := f.solid()
	// What is beyond pos is still on its way to us, and will be added then.
	n := sort.Search(len(f.entries), func(i int) bool { return pos.Before(f.entries[i].private()) })
	if n <= first {
		return
	}
	from := sort.Search(len(t.entries), func(i int) bool { return head.Before(t.entries[i].private()) })
	longer := tail{start: start, whole: f.since.IsZero() && first == 0}
	longer.entries = slices.Concat(f.entries[first:n], t.entries[from:])
	longer.times = slices.Concat(f.times[first:n], t.times[from:])
	for i := range longer.entries {
		longer.bytes += len(longer.entries[i].data)
	}
	longer.cut(w)
	if longer.start.Before(t.start) {
		*t = longer
	}
}

// solid returns the first of the entries from which on nothing can be missing
// among them, and the position before it.
func (f *flight) solid() (first int, start Position) {
	start = f.from
	for i := 1; i < len(f.entries); i++ {
		was, is := f.entries[i-1].private(), f.entries[i].private()
		if was.Epoch != is.Epoch && !f.page.whole(was.Epoch, is.Epoch, 0) {
			first, start = i, Position{is.Epoch, is.Offset - 1}
		}
	}
	if n := len(f.entries); n > 0 && !f.page.whole(f.entries[n-1].private().Epoch, f.page.Head.Epoch, 0) {
		return n, f.page.Head
	}
	if first == 0 && len(f.entries) > 0 && !f.page.whole(f.from.Epoch, f.entries[0].private().Epoch, 0) {
		start = Position{f.entries[0].private().Epoch, f.entries[0].position.Offset - 1}
	}
	return first, start
}
