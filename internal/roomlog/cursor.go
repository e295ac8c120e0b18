package roomlog

import "sync/atomic"

// An Owner is told when a cursor of its that had parked has something to read.
// Wake must not block.
type Owner interface{ Wake() }

// A Cursor is a place in a log. One goroutine at a time may use it (its owner
// sees to that); appends to the log continue meanwhile. A cursor is opened once
// and closed once, and not used again.
type Cursor[T Item, O Owner] struct {
	log   *Log[T, O]
	owner O

	// The place: in a segment at item i, or (seg nil) on a link.
	link *link[T]
	seg  *segment[T]
	i    int32
	// atEnd: the cursor had read everything when it came to this link.
	atEnd bool
	// fresh: the items of seg came when the cursor had read all before them.
	fresh bool
	// gapDue: the gap before seg's items is not reported yet.
	gapDue bool
	parked bool // since it came to this link; see listed

	// Guarded by log.mu while in the log's list; then the waker's.
	next, prev *Cursor[T, O]

	// pos is how far the cursor has come, for Overrun.
	pos atomic.Uint64
}

// Open puts c at the end of l: it will read what is appended from now on.
func (l *Log[T, O]) Open(c *Cursor[T, O], owner O) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.log, c.owner, c.link, c.atEnd = l, owner, l.end, true
	c.pos.Store(l.end.pos)
	l.cursors++
}

// Close takes c off its log.
func (c *Cursor[T, O]) Close() {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.listed() {
		c.unpark()
	}
	c.link, c.seg = nil, nil
	l.cursors--
	l.forgetIfRead()
}

// Peek returns what the cursor has before it: items, to be consumed with
// Advance, or a gap, to be consumed with TakeGap, or neither when everything is
// read. fresh reports whether the cursor had read everything before these items
// when they came. The caller must not modify items.
func (c *Cursor[T, O]) Peek() (items []T, fresh, gap bool) {
	for {
		if c.seg != nil {
			if c.gapDue {
				return nil, false, true
			}
			if int(c.i) < len(c.seg.items) {
				return c.seg.items[c.i:], c.fresh, false
			}
			c.arrive(c.seg.after)
			continue
		}
		s := c.link.next.Load()
		switch s {
		case nil:
			return nil, false, false
		case &c.log.limits.cut:
			return nil, false, true
		}
		c.enter(s)
	}
}

// enter goes from a link into the segment after it.
func (c *Cursor[T, O]) enter(s *segment[T]) {
	c.fresh = c.atEnd || (s.joined && c.fresh)
	c.atEnd, c.parked = false, false
	c.seg, c.i, c.link = s, 0, nil
	c.gapDue = !s.gap.IsZero()
	if c.log.limits.policy != Oldest {
		c.pos.Store(s.after.pos)
	}
}

// arrive goes from a segment to the link after it.
func (c *Cursor[T, O]) arrive(at *link[T]) {
	c.seg, c.link, c.parked = nil, at, false
	c.atEnd = at.next.Load() == nil
}

// Advance consumes the first n of the items that Peek returned.
func (c *Cursor[T, O]) Advance(n int) {
	c.i += int32(n)
	if int(c.i) >= len(c.seg.items) {
		c.arrive(c.seg.after)
	}
}

// Cut reports whether the gap that Peek announced is the cursor's own, because
// it fell out of the window.
func (c *Cursor[T, O]) Cut() bool { return c.seg == nil }

// TakeGap consumes the gap that Peek announced and says what is missing for a
// cursor that was opened at a time (see Gap).
func (c *Cursor[T, O]) TakeGap(opened uint32) Gap {
	if c.seg != nil {
		c.gapDue = false
		g := c.seg.gap.For(opened)
		if len(c.seg.items) == 0 {
			c.arrive(c.seg.after)
		}
		return g
	}
	return c.jump(opened)
}

// FallBack puts a cursor that stands before a gap, and has fallen out of the
// window with all that follows it, back to before the gap: then that is a part
// of what the cursor has missed. It reports whether that is so.
func (c *Cursor[T, O]) FallBack() bool {
	s := c.seg
	if s == nil || !c.gapDue || len(s.items) > 0 || s.after.next.Load() != &c.log.limits.cut {
		return false
	}
	before := &link[T]{pos: s.after.pos - uint64(s.gap.Missed), unknown: s.after.unknown}
	if s.gap.Unknown {
		before.unknown--
	}
	before.next.Store(&c.log.limits.cut)
	c.seg, c.link, c.gapDue = nil, before, false
	return true
}

// Find returns the first of the items before the cursor for which is is true,
// up to the end of the log or to where the cursor has fallen out of the window.
func (c *Cursor[T, O]) Find(is func(*T) bool) (found *T, ok bool) {
	s, i := c.seg, int(c.i)
	if s == nil {
		s, i = c.link.next.Load(), 0
	}
	for ; s != nil && s != &c.log.limits.cut; s, i = s.after.next.Load(), 0 {
		for ; i < len(s.items); i++ {
			if is(&s.items[i]) {
				return &s.items[i], true
			}
		}
	}
	return nil, false
}

// jump takes a cursor that fell out of the window back into it: into the
// segment, not to the link before it, which might be cut off again before the
// cursor has read anything.
func (c *Cursor[T, O]) jump(opened uint32) Gap {
	l := c.log
	newest := l.limits.policy == Newest
	l.mu.Lock()
	from, to := c.link, l.first
	if newest {
		to = l.beforeNewest()
	}
	gap := l.between(from, to, opened)
	s := to.next.Load()
	l.mu.Unlock()
	c.atEnd, c.fresh = false, false
	if s == nil { // the window is empty
		c.arrive(to)
		return gap
	}
	c.enter(s)
	c.fresh = false
	for ; newest && int(c.i) < len(s.items)-1; c.i++ {
		if s.items[c.i].Counts() {
			gap.Missed++
		}
	}
	return gap
}

// ToEnd takes a cursor that fell out of the window behind everything there is,
// and says what it passes over, as TakeGap does.
func (c *Cursor[T, O]) ToEnd(opened uint32) Gap {
	l := c.log
	l.mu.Lock()
	to := l.end
	gap := l.between(c.link, to, opened)
	l.mu.Unlock()
	c.arrive(to)
	c.atEnd = true
	c.pos.Store(to.pos)
	return gap
}

// beforeNewest returns the link before the last segment.
func (l *Log[T, O]) beforeNewest() *link[T] {
	l.mu.AssertHeld()
	at := l.first
	for {
		s := at.next.Load()
		if s == nil || s.after == l.end {
			return at
		}
		at = s.after
	}
}

// Mark returns the place where the log ends now, for Passed.
func (l *Log[T, O]) Mark() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end.pos
}

// Passed reports whether the cursor has read, or passed over, everything that
// was in the log when Mark returned mark. It may learn that only with the next
// item.
func (c *Cursor[T, O]) Passed(mark uint64) bool {
	if c.seg != nil {
		return c.seg.after.pos > mark+uint64(len(c.seg.items))
	}
	return c.link.pos > mark || c.AtEnd()
}

// Until returns how many of the items that Peek returned were in the log when
// Mark returned mark. Items that do not count, and came right after those, may
// be among them.
func (c *Cursor[T, O]) Until(mark uint64) int {
	items := c.seg.items[c.i:]
	n := len(items)
	for pos := c.seg.after.pos; n > 0 && pos > mark; n-- {
		if items[n-1].Counts() {
			pos--
		}
	}
	return n
}

// Ends reports whether what Peek returned, if anything, came to the log after
// Mark had returned mark.
func (c *Cursor[T, O]) Ends(mark uint64) bool {
	switch {
	case c.seg == nil:
		return c.link.pos >= mark || c.link.next.Load() == nil
	case !c.gapDue:
		return c.Until(mark) == 0
	}
	start := c.seg.after.pos - uint64(c.seg.gap.Missed)
	for i := range c.seg.items {
		if c.seg.items[i].Counts() {
			start--
		}
	}
	return start > mark || start == mark && c.seg.gap.Missed > 0
}

// AtEnd reports whether the cursor has read everything.
func (c *Cursor[T, O]) AtEnd() bool { return c.seg == nil && c.link.next.Load() == nil }

// Park makes the next append call the owner's Wake, once. It reports false, and
// does nothing, when there is something to read already.
func (c *Cursor[T, O]) Park() bool {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.seg != nil || c.link.next.Load() != nil {
		return false
	}
	c.parked = true
	c.prev, c.next = nil, l.parked
	if l.parked != nil {
		l.parked.prev = c
	}
	l.parked = c
	l.waiting++
	l.forgetIfRead()
	return true
}

// listed reports whether c is in the list of those that have parked: an append
// takes all of them, and changes the end.
func (c *Cursor[T, O]) listed() bool {
	c.log.mu.AssertHeld()
	return c.parked && c.link == c.log.end
}

// unpark takes c off the list.
func (c *Cursor[T, O]) unpark() {
	c.log.mu.AssertHeld()
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		c.log.parked = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.parked, c.prev, c.next = false, nil, nil
	c.log.waiting--
}

// Overrun reports whether the window has moved past the cursor: OldestKept of
// its log is oldest. Any goroutine may call it.
func (c *Cursor[T, O]) Overrun(oldest uint64) bool { return c.pos.Load() < oldest }
