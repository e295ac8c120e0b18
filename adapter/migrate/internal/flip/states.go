package flip

import (
	"fmt"
	"time"
)

// A Phase is the phase of a migration that a hub is in.
type Phase uint8

const (
	// Asking: the hub does not know whether the others have flipped. It
	// publishes nothing.
	Asking Phase = iota
	// Both: it publishes to the old backend, and listens to both.
	Both
	// Pausing: it publishes nothing, until it knows how the attempt ends.
	Pausing
	// Flipped: it publishes to the new backend, and listens to both.
	Flipped
)

func (p Phase) String() string {
	return [...]string{"asking", "both", "pausing", "flipped"}[p]
}

// Timing are the times of a Node.
type Timing struct {
	Beat     time.Duration // between announcements
	Settle   time.Duration // how long all must agree; 0: see settle
	Lease    time.Duration // after this time without an echo the hub stops publishing
	Dead     time.Duration // after this time without an announcement another hub is gone
	Attempt  time.Duration // how long the leader waits for all to pause
	Patience time.Duration // how long others wait for the leader
	Retry    time.Duration // between two attempts
}

// Times returns the times that hubs use.
func Times(settle time.Duration) Timing {
	return Timing{
		Beat: time.Second, Settle: settle, Lease: 6 * time.Second, Dead: 15 * time.Second,
		Attempt: 3 * time.Second, Patience: 6 * time.Second, Retry: 10 * time.Second,
	}
}

// A Kind is what an entry of the log says.
type Kind byte

const (
	Join   Kind = 'j' // a hub is there, and will publish to the old backend
	Commit Kind = 'c' // all have paused: from here on hubs publish to the new backend
	Abort  Kind = 'a' // the attempt has failed
)

// An Entry is an entry of the log.
type Entry struct {
	Kind    Kind
	Attempt uint64 // the entry's number, as its author wants it
	Node    string // the author
	At      uint64 // the entry's number, as the log has it
}

func (e Entry) String() string { return fmt.Sprintf("migrate1 %c %d %s", e.Kind, e.Attempt, e.Node) }

// ParseEntry reads what String has written.
func ParseEntry(s string, at uint64) (e Entry, ok bool) {
	n, err := fmt.Sscanf(s, "migrate1 %c %d %s", &e.Kind, &e.Attempt, &e.Node)
	e.At = at
	return e, n == 3 && err == nil
}

// An Announcement is what a hub says of itself, to all others.
type Announcement struct {
	ID      string   `json:"id"`
	Hub     uint64   `json:"hub,omitempty"` // whose frames it sends; 0: not known yet
	Phase   Phase    `json:"phase"`
	Ready   bool     `json:"ready"`             // it listens to both
	Paused  uint64   `json:"paused,omitempty"`  // the attempt for which it publishes nothing
	Pause   uint64   `json:"pause,omitempty"`   // the attempt for which the members are to pause
	Members []string `json:"members,omitempty"` // of the attempt
}

// A Do is what the owner of a Node has to do, in this order.
type Do struct {
	Announce *Announcement
	Probe    bool   // find out how many hubs the old backend has, and call Counted
	Append   *Entry // to the log, as entry number Attempt
	Read     bool   // the log, and call Log or Failed
	Note     bool   // at the new backend that the hubs have flipped, and call Noted
	Wake     time.Time
}

// Nothing reports whether there is nothing to do before Wake.
func (d *Do) Nothing() bool {
	return d.Announce == nil && !d.Probe && d.Append == nil && !d.Read && !d.Note
}
