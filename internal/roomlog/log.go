package roomlog

import (
	"sync/atomic"

	"github.com/fanoutgo/fanout/internal/locks"
)

// Item is what a log holds.
type Item interface {
	// Counts reports whether missing the item is a loss.
	Counts() bool
	// Size is the number of bytes the item takes of the window: what it keeps
	// alive that may be large.
	Size() int
}

// A Gap is a number of items that are missing at a place in the order.
//
// Some gaps are found after the fact: the items were missing earlier, and
// concern only cursors that were open then. The log's user numbers times, from
// 1, and says in which one a cursor was opened (Cursor.TakeGap). A gap with a
// nonzero Until lies after the time From and before the time Until: cursors
// that were opened in From or earlier have missed all of it, those that were
// opened in Until have missed nothing, and those between may have missed some
// of it.
type Gap struct {
	Missed      int
	Unknown     bool // there may be more than Missed
	From, Until uint32
}

// IsZero reports whether nothing is missing.
func (g Gap) IsZero() bool { return g == Gap{} }

// For returns the gap as a cursor has it that was opened at a time.
func (g Gap) For(time uint32) Gap {
	switch {
	case g.Until == 0 || time <= g.From:
		return Gap{Missed: g.Missed, Unknown: g.Unknown}
	case time < g.Until:
		return Gap{Unknown: true}
	}
	return Gap{}
}

// Limits are the bounds of a window and what happens to a cursor that falls out
// of it. Logs share one where they are equal; it is made by NewLimits and not
// changed.
type Limits[T Item] struct {
	items, bytes int
	wide, long   int // items and bytes of a log that is wide
	chunk        int // items a segment holds at most
	policy       Policy
	cut          segment[T] // marks a link whose segment has left the window
}

// Window returns the bounds that the limits were made with.
func (l *Limits[T]) Window() (items, bytes int) { return l.items, l.bytes }

// Policy returns what becomes of a cursor that falls out of the window.
func (l *Limits[T]) Policy() Policy { return l.policy }

// A Policy says what becomes of a cursor that falls out of the window.
type Policy uint8

const (
	Oldest Policy = iota // it continues at the oldest item that is kept
	Newest               // it continues at the newest item; Cursor.Overrun knows before the cursor does
	Track                // as Oldest; Cursor.Overrun knows as well
)

// NewLimits returns the limits of a window, in items and bytes.
func NewLimits[T Item](items, bytes int, policy Policy) *Limits[T] {
	// The window is trimmed a segment at a time: small segments make it
	// precise.
	return &Limits[T]{
		items: items, bytes: bytes, wide: max(items, wideItems), long: max(bytes, wideBytes),
		chunk: max(1, min(32, items/4)), policy: policy,
	}
}

// What a log holds that is wide, if its window is not more.
const (
	wideItems = 16 << 10
	wideBytes = 4 << 20
)

// A Log is the log of one room. The zero value is not usable; see Init.
//
// The methods of Log take the log's lock, for a short time each, as do Close,
// Park, ToEnd and TakeGap of a Cursor. (Init comes before any other.) Appends
// are ordered by their caller: two that run at once are both kept, in either
// order.
type Log[T Item, O Owner] struct {
	limits *Limits[T]

	// mu guards all below.

	end     *link[T] // where the next append hangs
	first   *link[T] // before the oldest segment that is kept; end if none is
	bytes   int      // in the window, like items
	items   int32
	wide    bool          // the window is
	parked  *Cursor[T, O] // in a list
	waiting int32         // their number
	cursors int32         // that are open
	earlier *earlier      // gaps with times that lie in what cursors may jump over; nil: none

	mu locks.Mutex[locks.Log]
}

// A link stands between two segments. It holds nothing of them.
type link[T Item] struct {
	next    atomic.Pointer[segment[T]] // nil at the end; &Limits.cut when cut off
	pos     uint64                     // items that count, and gaps, before this place
	unknown uint32                     // unknown gaps before this place
}

// A segment is immutable once it hangs in the log.
type segment[T Item] struct {
	items []T
	one   [1]T // room for the single item of most segments, to save an allocation
	gap   Gap  // before the items
	bytes int
	// joined: the segment came with the same arrival as the one before it.
	joined bool
	after  *link[T]
}

// Init makes l ready for use with the limits given.
func (l *Log[T, O]) Init(limits *Limits[T]) {
	l.limits = limits
	l.end = &link[T]{}
	l.first = l.end
}

// Limits returns the limits that l was made with.
func (l *Log[T, O]) Limits() *Limits[T] { return l.limits }

// Append adds a gap and items to the log and returns the cursors to wake. The
// log copies items, and wakes nobody: call Wake on the result after all locks
// are released, or the cursors wait for ever. A log without cursors keeps
// nothing.
func (l *Log[T, O]) Append(gap Gap, items []T) Wakeups[T, O] {
	return l.append(Gap{}, gap, items, false)
}

// AppendAfter is Append with another gap before all. That one may have times.
func (l *Log[T, O]) AppendAfter(before, gap Gap, items []T) Wakeups[T, O] {
	return l.append(before, gap, items, false)
}

// AppendMore is Append for more of the arrival that the last append began. An
// arrival of many items is appended in parts, so that the window is trimmed
// meanwhile; a cursor that has read the first part finds the next one as fresh.
func (l *Log[T, O]) AppendMore(gap Gap, items []T) Wakeups[T, O] {
	return l.append(Gap{}, gap, items, true)
}

func (l *Log[T, O]) append(before, gap Gap, items []T, more bool) Wakeups[T, O] {
	if before.IsZero() && gap.IsZero() && len(items) == 0 {
		return Wakeups[T, O]{}
	}
	l.mu.Lock()
	if l.cursors == 0 {
		l.mu.Unlock()
		return Wakeups[T, O]{}
	}
	c := chain[T]{pos: l.end.pos, unknown: l.end.unknown, more: more}
	if !before.IsZero() {
		c.hang(&segment[T]{gap: before})
		if before.Until != 0 {
			l.remember(c.pos, before)
		}
	}
	if !gap.IsZero() {
		c.hang(&segment[T]{gap: gap})
	}
	for len(items) > 0 {
		s := l.chunk(items)
		items = items[len(s.items):]
		c.hang(s)
	}
	// Readers see the whole chain at once: none of its links is ever an end but
	// the last.
	l.end.next.Store(c.first)
	l.end = c.last
	l.items += int32(c.items)
	l.bytes += c.bytes
	l.trim()
	woken := l.unparkAll()
	l.mu.Unlock()
	return woken
}

// unparkAll takes all cursors that have parked off the list. They are many,
// and far apart in memory: a waker looks at each.
func (l *Log[T, O]) unparkAll() Wakeups[T, O] {
	l.mu.AssertHeld()
	w := Wakeups[T, O]{l.parked}
	l.parked, l.waiting = nil, 0
	return w
}

// PassOver is AppendAfter for n items that count, and are out of the window as
// soon as they are in it, because more follow than it holds. Nothing is made of
// them.
func (l *Log[T, O]) PassOver(before, gap Gap, n int) Wakeups[T, O] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cursors == 0 {
		return Wakeups[T, O]{}
	}
	for l.first != l.end {
		l.cutFirst()
	}
	end := &link[T]{pos: l.end.pos, unknown: l.end.unknown}
	for _, g := range [...]Gap{before, gap} {
		end.pos += uint64(g.Missed)
		if g.Unknown {
			end.unknown++
		}
		if g.Until != 0 {
			l.remember(end.pos, g)
		}
	}
	end.pos += uint64(n)
	l.end.next.Store(&l.limits.cut)
	l.first, l.end = end, end
	return l.unparkAll()
}

// chunk returns a segment with the first of items, as many as one may hold.
func (l *Log[T, O]) chunk(items []T) *segment[T] {
	s := new(segment[T])
	n := 0
	for n < len(items) && n < l.limits.chunk {
		size := items[n].Size()
		if n > 0 && s.bytes+size > l.limits.bytes/4 {
			break
		}
		s.bytes += size
		n++
	}
	if n == 1 {
		s.one[0] = items[0]
		s.items = s.one[:]
	} else {
		s.items = append(make([]T, 0, n), items[:n]...)
	}
	return s
}

// A chain is what one append adds: segments and the links after them.
type chain[T Item] struct {
	first        *segment[T]
	last         *link[T] // nil: there is none yet
	more         bool     // the first segment, too, came with the one before it
	pos          uint64   // of the last link, like unknown
	unknown      uint32
	items, bytes int
}

func (c *chain[T]) hang(s *segment[T]) {
	c.pos += uint64(s.gap.Missed)
	if s.gap.Unknown {
		c.unknown++
	}
	for i := range s.items {
		if s.items[i].Counts() {
			c.pos++
		}
	}
	s.after = &link[T]{pos: c.pos, unknown: c.unknown}
	s.joined = c.last != nil || c.more
	if c.last != nil {
		c.last.next.Store(s)
	} else {
		c.first = s
	}
	c.last = s.after
	c.items += s.weight()
	c.bytes += s.bytes
}

// weight is what a segment counts in the window. One that is only a gap counts
// as well: there may be many.
func (s *segment[T]) weight() int { return max(1, len(s.items)) }

// trim cuts off what is more than the window holds; the newest segment stays.
func (l *Log[T, O]) trim() {
	l.mu.AssertHeld()
	items, bytes := l.limits.items, l.limits.bytes
	if l.wide {
		items, bytes = l.limits.wide, l.limits.long
	}
	for int(l.items) > items || l.bytes > bytes {
		if l.first.next.Load().after == l.end {
			return
		}
		l.cutFirst()
	}
}

// cutFirst cuts off the oldest segment.
func (l *Log[T, O]) cutFirst() {
	l.mu.AssertHeld()
	s := l.first.next.Load()
	l.items -= int32(s.weight())
	l.bytes -= s.bytes
	l.first.next.Store(&l.limits.cut)
	l.first = s.after
}

// forgetIfRead drops the window when every cursor has read everything, and
// parked.
func (l *Log[T, O]) forgetIfRead() {
	l.mu.AssertHeld()
	if l.waiting == l.cursors {
		l.first = l.end
		l.items, l.bytes = 0, 0
		l.earlier = nil
	}
}

// Kept returns the number of items and bytes that the window holds.
func (l *Log[T, O]) Kept() (items, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.items), l.bytes
}

// Widen makes the window wide, or as it was: a wide one holds 16,384 items and
// 4 MiB, for appends that come faster than cursors can follow for a while.
func (l *Log[T, O]) Widen(wide bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wide = wide; !wide {
		l.trim()
	}
}

// OldestKept is a mark that Cursor.Overrun compares with.
func (l *Log[T, O]) OldestKept() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first.pos
}

// Wakeups are parked cursors that an append has taken off the log.
type Wakeups[T Item, O Owner] struct{ head *Cursor[T, O] }

// None reports whether there is nobody to wake.
func (w Wakeups[T, O]) None() bool { return w.head == nil }

// Wake calls Wake of the owners of the first n cursors, and returns the rest.
// Call it with no lock held, and once for each Wakeups.
func (w Wakeups[T, O]) Wake(n int) (rest Wakeups[T, O]) {
	c := w.head
	for ; c != nil && n > 0; n-- {
		// Once its owner knows, the cursor may park again and reuse next.
		next := c.next
		c.next, c.prev = nil, nil
		c.owner.Wake()
		c = next
	}
	return Wakeups[T, O]{c}
}

// Join adds those of more, which are few, to w. Neither may be used afterwards.
func (w Wakeups[T, O]) Join(more Wakeups[T, O]) Wakeups[T, O] {
	if more.head == nil {
		return w
	}
	last := more.head
	for last.next != nil {
		last = last.next
	}
	last.next = w.head
	return more
}

// Split returns the first n and the rest.
func (w Wakeups[T, O]) Split(n int) (first, rest Wakeups[T, O]) {
	last := w.head
	for ; last != nil && n > 1; n-- {
		last = last.next
	}
	if last == nil {
		return w, Wakeups[T, O]{}
	}
	rest.head, last.next = last.next, nil
	return w, rest
}
