package locks

// The ranks of the locks of a hub, in the order in which they are taken. What
// each of them guards is in docs/ARCHITECTURE.md.
type (
	// Walk is the rank of Member.walk.
	Walk struct{}
	// Hub is the rank of Hub.mu.
	Hub struct{}
	// Member is the rank of Member.mu.
	Member struct{}
	// Room is the rank of the lock of a room.
	Room struct{}
	// Log is the rank of the lock of a room's log.
	Log struct{}
	// Ready is the rank of Member.readyMu.
	Ready struct{}
	// Inboxes is the rank of Inboxes.mu of package publishing.
	Inboxes struct{}
	// Innermost is the rank of all locks under which no other is taken.
	Innermost struct{}
)

// Rank implements the interface.
func (Walk) Rank() (int, string) { return 1, "Member.walk" }

// Rank implements the interface.
func (Hub) Rank() (int, string) { return 2, "Hub.mu" }

// Rank implements the interface.
func (Member) Rank() (int, string) { return 3, "Member.mu" }

// Rank implements the interface.
func (Room) Rank() (int, string) { return 4, "the lock of a room" }

// Rank implements the interface.
func (Log) Rank() (int, string) { return 5, "the lock of a log" }

// Rank implements the interface.
func (Ready) Rank() (int, string) { return 6, "Member.readyMu" }

// Rank implements the interface.
func (Inboxes) Rank() (int, string) { return 7, "Inboxes.mu" }

// Rank implements the interface.
func (Innermost) Rank() (int, string) { return 8, "an innermost lock" }
