package fanout

import "fmt"

// A Message is what a member receives.
type Message struct {
	// Room is the room it was said in; empty for a direct message and for one
	// to everyone.
	Room string

	// Data is what was published. All members of the process share these
	// bytes: nobody may modify them, and work that is the same for all members
	// can be done once (&Data[0] is the same for all). They stay valid as long
	// as they are held; that may keep the frame alive in which they came (some
	// 32 KiB).
	Data []byte

	// Sender is the ID of the hub that published the message; empty for a
	// stranger's, which came to the room's channel without our frame around it.
	Sender string

	// Position is where in the room's history the message stands. It is the
	// zero Position in a room that keeps no history.
	Position Position
}

// A Position is a place in a room's history. Within an epoch offsets number the
// messages contiguously from 1; a new epoch begins when the history itself was
// lost. The zero Position is before everything.
type Position struct {
	Epoch  uint64
	Offset uint64
}

// IsZero reports whether p is the zero Position.
func (p Position) IsZero() bool { return p == Position{} }

// String returns the position as "epoch-offset".
func (p Position) String() string { return fmt.Sprintf("%d-%d", p.Epoch, p.Offset) }
