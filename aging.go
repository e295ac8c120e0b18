package fanout

import (
	"slices"
	"sync"
	"time"
)

// Tails are looked at when the first of them has something to drop, but no more
// often than every tailPause, and at least every tailRest, to let go of rooms that
// are no longer subscribed.
const (
	tailPause = time.Second
	tailRest  = time.Minute
)

// agingTails are the rooms that have a tail, which is to go when its age is over
// even if nothing more is published there. The janitor calls sweep.
type agingTails struct {
	rooms []*roomState // sweep's own, like due
	due   time.Time    // when to look at them; zero: there are none

	mu    sync.Mutex   // guards fresh. Inside the locks of rooms
	fresh []*roomState // that have a tail since sweep has looked
}

// ageTail tells the janitor of a room that has a tail. rs.mu is held.
func (rs *roomState) ageTail() {
	k := rs.kept
	if k.ages || len(k.tail.chunks) == 0 {
		return
	}
	k.ages = true
	a := &rs.hub.janitor.aging
	a.mu.Lock()
	a.fresh = append(a.fresh, rs)
	first := len(a.fresh) == 1
	a.mu.Unlock()
	if first {
		rs.hub.janitor.wake()
	}
}

// sweep drops what has expired, and says when to look again (zero: there is
// nothing to look at).
func (a *agingTails) sweep(now time.Time) time.Time {
	a.mu.Lock()
	fresh := a.fresh
	a.fresh = nil
	a.mu.Unlock()
	for _, rs := range fresh {
		a.rooms = append(a.rooms, rs)
		if due := now.Add(min(rs.kept.keep.Age, tailRest)); a.due.IsZero() || due.Before(a.due) {
			a.due = due
		}
	}
	if len(a.rooms) == 0 || now.Before(a.due) {
		return a.due
	}
	next := now.Add(tailRest)
	a.rooms = slices.DeleteFunc(a.rooms, func(rs *roomState) bool {
		due, empty := rs.expireTail(now)
		if !empty && due.Before(next) {
			next = due
		}
		return empty
	})
	if len(a.rooms) == 0 {
		a.rooms, next = nil, time.Time{}
	}
	a.due = next
	return next
}

// expireTail drops what has expired of a room's tail, and says when the next will
// have, or that nothing is left.
func (rs *roomState) expireTail(now time.Time) (due time.Time, empty bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	k := rs.kept
	k.tail.expire(ticks() - k.keep.Age.Nanoseconds())
	if k.ages = len(k.tail.chunks) > 0; !k.ages {
		return due, true
	}
	times := k.tail.chunks[0].times
	due = began.Add(time.Duration(times[len(times)-1])).Add(k.keep.Age + 1)
	if soon := now.Add(max(tailPause, k.keep.Age/8)); due.Before(soon) {
		due = soon // not each chunk by itself
	}
	return due, false
}
