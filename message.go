package fanout

// A Message is what a member receives.
type Message struct {
	// Room is the room it was said in; empty for a direct message and for one
	// to everyone.
	Room string

	// Data is what was published. All members of the process share these
	// bytes: nobody may modify them, and work that is the same for all members
	// can be done once (&Data[0] is the same for all). They stay valid as long
	// as they are held; that may keep the frame alive in which they came (some
	// 64 KiB).
	Data []byte

	// Sender is the ID of the hub that published the message; empty for a
	// stranger's, which came to the room's channel without our frame around it.
	Sender string

	// Position is where in the room's history the message stands: give it to
	// Room.Resume to go on after it. It is the zero Position in a room that keeps
	// no history, and for what is not kept: a stranger's message that was only
	// published, one of a Local
	// selection, what LocalFallback delivered, what the history does not have
	// though it came with a position.
	Position Position
}
