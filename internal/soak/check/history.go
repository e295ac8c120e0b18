// Package check holds what was recorded of a run against what package fanout
// guarantees. It knows nothing of how the library works: a run is what
// publishers were told and what members received, with times, and what the
// servers suffered meanwhile.
package check

import (
	"time"

	"github.com/fanoutgo/fanout"
)

// Time is since the run began. If a call returned before another began, its time
// is not the later one; equal times say nothing.
type Time = time.Duration

// A Run is all that was recorded.
type Run struct {
	Rooms []*Room
	// Faults in the order of time. Each lasts until the next one begins, the
	// first one begins with the run and may be none at all.
	Faults []Fault
}

// A Fault is what the servers or the hubs suffered, and what may come of it.
type Fault struct {
	Name   string
	From   Time
	Served Time // when everybody heard everybody again

	// Lossy: the servers may lose what they have acknowledged.
	Lossy bool
	// Doubtful: nobody can know whether they did, so rooms with history may be
	// told of a gap although nothing is missing.
	Doubtful bool
	// TwoOrders: two primaries serve a slot for a while, so rooms without
	// history may see two orders.
	TwoOrders bool
	// Moves: slots move, with the histories in them. A server that has not been one
	// for long cannot know that they came whole.
	Moves bool
}

// A Room is what happened in a room.
type Room struct {
	Name      string
	Keeps     int             // how many messages its history keeps; 0: it has none
	Published [][]Publication // by publisher, then by number
	Stays     []*Stay         // of each client in the order of time
	Reads     []*Read
}

// A Publication is one call of Publish. A publisher's next one begins after it.
type Publication struct {
	Begin, End Time
	Outcome    Outcome
}

// An Outcome is what Publish has said.
type Outcome uint8

const (
	Accepted Outcome = iota // no error
	Unsent                  // an error that promises that nobody can have it
	Unclear                 // another error
)

// An ID says which message of a room it is.
type ID struct {
	Publisher uint16
	Number    uint32
}

// A Stay is a time that a client spent in a room. A client may be in it several
// times, on several hubs, one after the other.
type Stay struct {
	Client  string
	Resumed bool            // by Resume, not Join
	Since   fanout.Position // of Resume

	Joining, Joined Time // Join or Resume was called, has returned
	Leaving, Left   Time // Leave or Close likewise
	Complete        bool // it left after the last message of every publisher had come

	Events []Event // in the order in which they were received
}

// An Event is a message or a gap that a member received.
type Event struct {
	Asked, At Time // Receive was called, has returned
	Message   ID
	Position  fanout.Position

	Gap     bool // no message, but:
	Unknown bool
	Missed  int
}

// A Read is a call of History that succeeded, or returned a gap.
type Read struct {
	Client     string
	Since      fanout.Position
	Begin, End Time
	Missed     int  // as the gap says
	Unknown    bool // there may be more
	Messages   []Event
}
