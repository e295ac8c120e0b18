package item

import (
	"time"

	"github.com/fanoutgo/fanout/internal/once"
)

// Copies are the messages to several rooms that a member has received, so that
// it gets no second copy of one. P is a place in a room that a member comes to.
//
// A copy is remembered as long as another one can come:
//
//   - from a publish that is not over in all of its rooms. Those end within an
//     age of the first copy;
//   - from what has come to a room, and the member has not read yet. So a copy
//     is forgotten only when the member has passed all places at which its
//     rooms ended some time after it came;
//   - from the history of a room that the member resumes. Nobody knows which
//     that will be, so the budget is larger where rooms keep histories.
//
// Since a hub numbers its messages to several rooms, what a member sees of them
// takes little memory (see package once). As long as it is within the budget,
// nothing is forgotten; and there is never more than the limit.
type Copies[P any] struct {
	seen   once.Set
	budget int // blocks that are kept whatever happens
	check  int // number of blocks from which on to look for what can be forgotten

	marks  []P // where the member's rooms ended at the time marked; nil: unknown
	marked uint32
}

// Numbers of blocks of a member's once.Set.
const (
	copiesBudget     = 1 << 10 / once.BlockSize  // nothing is forgotten
	copiesBudgetKept = 64 << 10 / once.BlockSize // where rooms keep histories
	copiesLimit      = 3 << 20 / once.BlockSize  // the older half is forgotten
)

// NewCopies returns Copies for a member of a hub whose rooms keep histories, or
// do not.
func NewCopies[P any](histories bool) *Copies[P] {
	budget := copiesBudget
	if histories {
		budget = copiesBudgetKept
	}
	return &Copies[P]{budget: budget, check: budget}
}

// Add adds a copy at a time, which does not go back, and reports whether it is
// the first of its message. If it is due, Forget is to be called.
func (c *Copies[P]) Add(key CopyKey, now time.Duration) (first, due bool) {
	first = c.seen.Add(key.Hub, key.ID, seconds(now))
	return first, c.seen.Len() > c.check
}

// Forget forgets what is no longer needed: what was last added to more than an
// age before a time at which the member's rooms ended at places that it has
// passed. The function ends returns those places now, or nil if they are not
// known.
func (c *Copies[P]) Forget(now, age time.Duration, passed func([]P) bool, ends func() []P) {
	oldest := seconds(age) + 1
	if c.marks != nil && passed(c.marks) {
		if c.marked > oldest {
			c.seen.Forget(c.marked - oldest)
		}
		c.marks = nil
	}
	if c.marks == nil {
		c.marks, c.marked = ends(), seconds(now)
	}
	if c.seen.Len() > copiesLimit {
		c.seen.Forget(c.seen.Median() + 1)
	}
	// What looking costs is spread over what has been added.
	n := c.seen.Len()
	c.check = max(c.budget, n+max(32, n/8, len(c.marks)))
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }
