package fanout

// A Message is what a member receives.
type Message struct {
	// Room is the room that the message was published to. It is empty for a
	// direct message and for one to everyone.
	Room string

	// Data is what was published. All members of the process share these bytes:
	// do not modify them. Work that is the same for all members can be done
	// once, since &Data[0] is the same for all of them. The bytes stay valid as
	// long as they are held, and may keep the frame in memory in which they
	// came (some 64 KiB).
	Data []byte

	// Sender is the ID of the hub that published the message. It is empty if a
	// program that is not a hub published it to the room's channel.
	Sender string

	// Position is the place of the message in the room's history. [Room.Resume]
	// continues after it. It is the zero Position in a room without a history,
	// and for messages that the history does not have: those of a Local
	// selection, those that Options.LocalFallback delivered, and those of other
	// programs that were only published.
	Position Position
}
