package fanout

import (
	"context"
	"errors"
	"iter"
	"math"
	"time"

	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// Receive returns the next message of any of the member's rooms. Messages of a
// room come in its order; rooms take turns. Receive waits until there is a
// message or ctx ends.
//
// A [*GapError] says that messages of a room are missing before the next one,
// and is not final: call Receive again. An error that wraps [ErrClosed] or
// [ErrSlow] is final. After the error of ctx Receive can be called again;
// nothing is lost.
func (m *Member) Receive(ctx context.Context) (Message, error) {
	var one [1]Message
	_, err := m.ReceiveBatch(ctx, one[:])
	return one[0], err
}

// ReceiveBatch waits like [Member.Receive], then fills buf with the messages
// that are there and returns their number. It returns either messages or an
// error. In a busy room it is faster than Receive: one call, and for example
// one write to the network, serves many messages.
//
// The length of buf must be at least 1. The buffer keeps alive the data of the
// messages in it, so clear it where a quiet connection should hold no memory.
func (m *Member) ReceiveBatch(ctx context.Context, buf []Message) (int, error) {
	if len(buf) == 0 {
		return 0, failed("receive", errEmptyBuffer)
	}
	if ctx.Err() != nil {
		return 0, failed("receive", context.Cause(ctx))
	}
	m.walk.Lock()
	if m.receiving {
		m.walk.Unlock()
		return 0, failed("receive", ErrConcurrentReceive)
	}
	m.receiving, m.received = true, true
	for {
		n, err := m.take(buf)
		if n == 0 && err == nil {
			wake := m.wake
			m.walk.Unlock()
			err = m.wait(ctx, wake)
			m.walk.Lock()
			if err == nil {
				continue
			}
		}
		m.receiving = false
		m.walk.Unlock()
		if endsMember(err) {
			m.end(err)
		}
		return n, receiveError(err)
	}
}

// receiveError returns the error that users see of a Receive. A GapError names
// its room itself.
func receiveError(err error) error {
	if err == nil {
		return nil // before anything that allocates: this is called for each batch
	}
	if gap := (*GapError)(nil); errors.As(err, &gap) {
		return err
	}
	return failed("receive", err)
}

// Messages returns the messages and gaps as they come, as [Member.Receive]
// does. It ends after it has yielded a final error or the error of ctx, and
// continues after a [*GapError].
func (m *Member) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			msg, err := m.Receive(ctx)
			if !yield(msg, err) {
				return
			}
			if _, gap := errors.AsType[*GapError](err); err != nil && !gap {
				return
			}
		}
	}
}

// wait waits until something may be ready. The end of the member is no error
// here, since take returns it. The caller has read m.wake.
func (m *Member) wait(ctx context.Context, wake <-chan struct{}) error {
	if wake == nil {
		if wake = m.firstWait(); wake == nil {
			return nil
		}
	}
	if ctx.Done() == nil {
		<-wake
		return nil
	}
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// firstWait makes wake, and returns it if there is something to wait for:
// before that, no one could be woken.
func (m *Member) firstWait() <-chan struct{} {
	m.readyMu.Lock()
	defer m.readyMu.Unlock()
	if m.wake == nil {
		m.wake = make(chan struct{}, 1)
	}
	if !m.ready.empty() || m.err.Load() != alive {
		return nil
	}
	return m.wake
}

// take fills buf with what is ready.
func (m *Member) take(buf []Message) (n int, err error) {
	m.walk.AssertHeld()
	last, err := m.standing()
	if err != nil {
		return 0, err
	}
	for n < len(buf) {
		if m.current == nil {
			if m.current = m.dequeue(); m.current == nil {
				return n, last.over(n)
			}
		}
		ms := m.current
		if ms.left.Load() {
			m.current = nil
			continue
		}
		if ms.place != nil && (ms.place.replay != nil || ms.place.lists && last == nil) {
			got, full, err := m.takeBefore(buf[n:], ms, n == 0)
			if n += got; err != nil || full {
				return n, err
			}
			continue
		}
		items, fresh, gap := ms.cursor.Peek()
		if last != nil {
			if last.passed(ms) {
				m.dismiss(ms)
				continue
			}
			items = last.cut(ms, items)
		}
		switch {
		case gap:
			if n > 0 {
				return n, nil // the gap comes first the next time
			}
			if err := m.passGap(ms); err != nil {
				return 0, err
			}
		case len(items) > 0:
			ms.caughtUp()
			got, used := m.copy(buf[n:], ms, items, fresh)
			n += got
			ms.pass(items[:used])
			ms.cursor.Advance(used)
			m.rotate()
		case n > 0 && !m.anyReady():
			// The member has something to do, and may find more when it comes
			// back. It is not parked, so that publishers need not wake it.
			return n, nil
		case ms.cursor.Park():
			ms.caughtUp()
			m.current = nil
		}
	}
	return n, nil
}

// takeBefore fills buf with what a member gets before the messages at its
// cursor: messages from the history if it comes from behind, or the list of who
// is here. Otherwise it takes the member a step further. It returns full if
// there is a gap next and buf must not have one.
func (m *Member) takeBefore(buf []Message, ms *membership, mayGap bool) (n int, full bool, err error) {
	m.walk.AssertHeld()
	r := ms.place.replay
	switch {
	case r == nil:
		n = m.takeList(buf, ms)
	case !mayGap && !r.Gap().IsZero():
		return 0, true, nil // the gap comes first the next time
	case !r.Empty():
		n, err = m.takePart(buf, ms, r)
		if err == nil {
			m.rotate()
		}
	case r.Met():
		ms.place.replay = nil
		ms.listAgain()
	case !ms.advance():
		m.current = nil
		m.hub.pool.Aside(func() { ms.room.bring(ms) }) // which puts it into the queue again
	}
	return n, false, err
}

// gap consumes the gaps before the cursor of ms, and returns the error for
// them. It is nil if all messages that the cursor has missed were volatile. It
// is also nil if the cursor has just fallen behind, so that the gap comes with
// the messages from the history.
func (m *Member) gap(ms *membership) error {
	m.walk.AssertHeld()
	var sum roomlog.Gap
	var slow bool
	if ms.room.kept != nil {
		sum, slow = m.takeGapsInOrder(ms)
	} else {
		sum, slow = m.takeGaps(ms)
	}
	switch {
	case slow:
		return ErrSlow
	case sum.IsZero():
		return nil
	}
	return &GapError{Room: ms.room.name, Missed: sum.Missed, Unknown: sum.Unknown}
}

// takeGaps consumes the gaps before the cursor of ms. Slow says that a member
// that falls behind is to be disconnected.
func (m *Member) takeGaps(ms *membership) (sum roomlog.Gap, slow bool) {
	m.walk.AssertHeld()
	for more := true; more; {
		fell := ms.cursor.Cut()
		g := ms.cursor.TakeGap(ms.opened)
		if fell && ms.place != nil {
			ms.place.plain = false
			ms.listAgain()
		}
		sum.Missed += min(g.Missed, math.MaxInt-sum.Missed)
		sum.Unknown = sum.Unknown || g.Unknown
		if fell && !g.IsZero() && ms.room.overflow() == Disconnect {
			return sum, true
		}
		_, _, more = ms.cursor.Peek()
		more = more && !m.refills(ms)
	}
	return sum, false
}

// takePart takes messages from the part that a member has from the history.
func (m *Member) takePart(buf []Message, ms *membership, r *memberReplay) (got int, err error) {
	m.walk.AssertHeld()
	if gap := r.TakeGap(); !gap.IsZero() {
		err = &GapError{Room: ms.room.name, Missed: gap.Missed, Unknown: gap.Unknown}
	} else {
		var used int
		items := r.Items()
		got, used = m.copy(buf, ms, items, false)
		ms.pass(items[:used])
		r.Advance(used)
	}
	if len(r.Items()) == 0 && (r.Met() || !r.At().IsZero()) {
		ms.place.last = public(r.At(), ms.room.kept.mark)
	}
	return got, err
}

// copy puts entries into buf. It returns how many messages it put there, and
// how many entries it has used.
func (m *Member) copy(buf []Message, ms *membership, entries []item.Entry, fresh bool) (got, used int) {
	m.walk.AssertHeld()
	var after Position
	if ms.place != nil {
		after = ms.place.after
	}
	for i := range entries {
		if got == len(buf) {
			return got, i
		}
		e := &entries[i]
		if (e.Volatile && !fresh) || (e.Filter != nil && !m.admits(ms, e.Filter)) {
			continue
		}
		var at Position
		if !e.At.IsZero() {
			if at = public(e.At, ms.room.kept.mark); !after.IsZero() && !after.Before(at) {
				continue // it had this at a hub that was ahead, and resumed here
			}
		}
		b := &buf[got]
		b.Room, b.Data, b.Sender, b.Position = ms.room.name, e.Data, e.Sender, at
		got++
	}
	return got, len(entries)
}

// admits reports whether the member gets a message that has a filter. It is
// called once, when the member reads the message.
func (m *Member) admits(ms *membership, f *item.Filter) bool {
	m.walk.AssertHeld()
	if number, is := f.Change(); is {
		return number > ms.place.shown
	}
	if f.Excludes(m.num) {
		return false
	}
	if arrival, some := f.ExcludesRooms(); some && m.wasIn(f, arrival) {
		return false
	}
	key, several := f.Copy()
	return !several || m.firstCopy(key)
}

// minCopyTime is the least of Hub.copyTime.
const minCopyTime = 30 * time.Second

// copyTime is how long after its first copy a message may come to another room:
// its publisher tries as long as Options.PublishTimeout, after that an attempt
// that has begun may take some seconds more, and then the message has to
// travel.
func (h *Hub) copyTime() time.Duration { return max(2*h.opts.PublishTimeout, minCopyTime) }

// firstCopy reports whether a copy is the first of its message, and notes it.
func (m *Member) firstCopy(key item.CopyKey) bool {
	m.walk.AssertHeld()
	e := m.extras()
	if e.copies == nil {
		e.copies = item.NewCopies[milestone](m.hub.opts.Room != nil && m.hub.historian != nil)
	}
	now := time.Duration(clock.Now())
	first, due := e.copies.Add(key, now)
	if due {
		e.copies.Forget(now, m.hub.copyTime(), m.passed, m.ends)
	}
	return first
}
