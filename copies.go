package fanout

import (
	"time"

	"github.com/fanoutgo/fanout/internal/once"
)

// copies are the messages to several rooms that a member has received, so that it
// gets no second copy of one. Guarded by Member.walk.
//
// A copy is remembered as long as another one can come:
//
//   - from a publish that is not over in all of its rooms. Those end within
//     Hub.copyTime of the first copy;
//   - from what has come to a room, and the member has not read yet. So what is
//     older than that is forgotten only when the member has been through all that
//     was in its rooms at the time (see marks);
//   - from the history of a room that the member resumes. Nobody knows which that
//     will be, so more is remembered where rooms keep histories.
//
// Since a hub numbers its messages to several rooms, what a member sees of them
// takes little (see package once). As long as it takes no more than the budget,
// nothing is forgotten; and never is there more than the limit.
type copies struct {
	seen  once.Set
	check int // blocks in seen from which on to look for what can be forgotten

	// Where the member's rooms ended at a time, in seconds of ticks; nil: it is
	// not waited for.
	marks  []milestone
	marked uint32
}

// A milestone is a place in a room that the member comes to.
type milestone struct {
	ms *membership
	at uint64
}

// The blocks of a once.Set that a member has of copies.
const (
	copiesBudget     = 1 << 10 / once.BlockSize  // nothing is forgotten
	copiesBudgetKept = 64 << 10 / once.BlockSize // where rooms keep histories
	copiesLimit      = 3 << 20 / once.BlockSize  // the older half is forgotten
)

// minCopyTime is the least of Hub.copyTime.
const minCopyTime = 30 * time.Second

// copyTime is how long after its first copy a message may come to another room:
// its publisher tries as long as Options.PublishTimeout, after which an attempt
// that has begun may go on for some seconds; then it has to travel.
func (h *Hub) copyTime() time.Duration { return max(2*h.opts.PublishTimeout, minCopyTime) }

// firstCopy reports whether a copy is the first of its message, and notes it.
func (m *Member) firstCopy(key copyKey) bool {
	m.walk.AssertHeld()
	e := m.extras()
	if e.copies == nil {
		e.copies = &copies{check: m.hub.copiesBudget()}
	}
	c, now := e.copies, seconds(ticks())
	first := c.seen.Add(key.hub, key.id, now)
	if c.seen.Len() > c.check {
		m.forgetCopies(c, now)
	}
	return first
}

func (h *Hub) copiesBudget() int {
	if h.opts.Room != nil && h.historian != nil {
		return copiesBudgetKept
	}
	return copiesBudget
}

func seconds(ticks int64) uint32 { return uint32(ticks / int64(time.Second)) }

// forgetCopies forgets what is no longer needed.
func (m *Member) forgetCopies(c *copies, now uint32) {
	m.walk.AssertHeld()
	age := seconds(int64(m.hub.copyTime())) + 1
	if c.marks != nil && m.passed(c.marks) {
		if c.marked > age {
			c.seen.Forget(c.marked - age)
		}
		c.marks = nil
	}
	if c.marks == nil {
		c.marks, c.marked = m.ends(), now
	}
	if c.seen.Len() > copiesLimit {
		c.seen.Forget(c.seen.Median() + 1)
	}
	// What looking costs is spread over what has been added.
	n := c.seen.Len()
	c.check = max(m.hub.copiesBudget(), n+max(32, n/8, len(c.marks)))
}

// ends returns where the rooms of the member end, or nil if there are some to
// which older messages may come yet: by a Resume, or because the hub is reading
// what it missed.
func (m *Member) ends() []milestone {
	m.walk.AssertHeld()
	marks := []milestone{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for ms := range m.rooms.each {
		rs := ms.room
		joined, behind := ms.standing()
		if behind || joined && !rs.isWhole() {
			return nil
		}
		if joined {
			marks = append(marks, milestone{ms, rs.log.Mark()})
		}
	}
	return marks
}

// isWhole reports whether what was said in the room is in its log, or never will
// be.
func (rs *roomState) isWhole() bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.kept == nil || rs.follows()
}

// passed reports whether the member has read everything up to the marks.
func (m *Member) passed(marks []milestone) bool {
	m.walk.AssertHeld()
	for _, k := range marks {
		if !k.ms.left.Load() && !k.ms.cursor.Passed(k.at) {
			return false
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for ms := range m.rooms.each {
		if _, behind := ms.standing(); behind {
			return false
		}
	}
	return true
}
