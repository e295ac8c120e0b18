package adapter

import "fmt"

// A Position is a place in a channel's history, as the backend counts; see
// [Historian]. The zero Position is before everything.
type Position struct {
	Epoch  uint64
	Offset uint64
}

// IsZero reports whether p is the zero Position.
func (p Position) IsZero() bool { return p == Position{} }

// Before reports whether p comes before q in the history of one channel.
func (p Position) Before(q Position) bool {
	return p.Epoch < q.Epoch || (p.Epoch == q.Epoch && p.Offset < q.Offset)
}

// String returns the position as "epoch-offset", two decimal numbers.
func (p Position) String() string { return fmt.Sprintf("%d-%d", p.Epoch, p.Offset) }
