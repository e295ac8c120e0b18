package fanout

import (
	"math"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// passGap begins to fill the gap before the cursor of ms, or consumes it.
func (m *Member) passGap(ms *membership) error {
	m.walk.AssertHeld()
	if m.refills(ms) {
		ms.place.replay = ms.refill()
		ms.place.behind.Store(follows)
		return nil
	}
	return m.gap(ms)
}

// refills reports whether the gap before the cursor of ms is its own, and the
// history has what is missing there.
func (m *Member) refills(ms *membership) bool { return ms.cursor.Cut() && m.mayRefill(ms) }

// mayRefill reports whether what falls out of the window is to come from the
// history.
func (m *Member) mayRefill(ms *membership) bool {
	p := ms.place
	return p != nil && ms.room.kept != nil && (ms.room.overflow() == Skip || p.behind.Load() != within) && !p.plain
}

// gap consumes the gaps before the cursor of ms, and returns the error for them.
// It is nil when all that the cursor has fallen behind was volatile, and when
// the cursor has fallen behind now, so that the gap is to come with the rest from
// the history.
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

// takeGapsInOrder is takeGaps for a room with a history. It notes how far the
// member has come there, so that the history is not asked again for what the
// member was told to have missed. Nothing is appended meanwhile.
func (m *Member) takeGapsInOrder(ms *membership) (sum roomlog.Gap, slow bool) {
	rs := ms.room
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if m.mayRefill(ms) && ms.cursor.FallBack() {
		return sum, false
	}
	sum, slow = m.takeGaps(ms)
	last := rs.kept.follower.Position()
	if next, ok := ms.cursor.Find(func(e *item.Entry) bool { return !e.At.IsZero() }); ok {
		last = adapter.Position{Epoch: next.At.Epoch, Offset: next.At.Offset - 1}
	}
	ms.place.last = public(last, rs.kept.mark)
	return sum, slow
}

// takeGaps consumes the gaps before the cursor of ms. Slow says that a member
// that falls behind is to be disconnected.
func (m *Member) takeGaps(ms *membership) (sum roomlog.Gap, slow bool) {
	for more := true; more; {
		fell := ms.cursor.Cut()
		g := ms.cursor.TakeGap(ms.opened)
		if fell && ms.place != nil {
			ms.place.plain = false
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
