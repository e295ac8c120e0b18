// Package check compares the record of a run with the guarantees of package
// fanout. It knows nothing about how the library works. The record of a run has
// what publishers were told and what members received, with times, and the
// faults of the servers.
package check

import (
	"time"

	"github.com/fanoutgo/fanout"
)

// Time is the time since the run began. If a call returned before another
// began, its time is not later than the other's; equal times prove nothing.
type Time = time.Duration

// A Run is the record of a run.
type Run struct {
	Rooms []*Room
	// Faults are in the order of time. Each lasts until the next one begins.
	// The first one begins with the run and may be no fault at all.
	Faults []Fault
	// Unordered: the backend has no order among publishers, so rooms without
	// history may see them in different order. Those of one publisher are in
	// order all the same.
	Unordered bool
}

// A Fault is what happened to the servers or the hubs, and what it may cause.
type Fault struct {
	Name   string
	From   Time
	Served Time // when all clients received from all publishers again

	// Lossy: the servers may lose messages that they have acknowledged.
	Lossy bool
	// Doubtful: the servers cannot be sure that they did not, so rooms with
	// history may get a gap although nothing is missing.
	Doubtful bool
	// TwoOrders: two primaries serve a slot for a while, so rooms without
	// history may see two orders.
	TwoOrders bool
	// Moves: slots move, with the histories in them. A server that has been one
	// for a short time only cannot be sure that they are complete.
	Moves bool
}

// A Room is the record of a room.
type Room struct {
	Name      string
	Keeps     int             // how many messages its history keeps; 0: it has none
	Published [][]Publication // by publisher, then by number
	Stays     []*Stay         // of each client in the order of time
	Reads     []*Read
	Lists     []*List // if it has presence
}

// A Publication is one call of Publish. A publisher's next one begins after it.
type Publication struct {
	Begin, End Time
	Outcome    Outcome
}

// An Outcome is the result of Publish.
type Outcome uint8

const (
	Accepted Outcome = iota // no error
	Unsent                  // an error that promises that it was not delivered
	Unclear                 // another error
)

// An ID identifies a message of a room.
type ID struct {
	Publisher uint16
	Number    uint32
}

// A Stay is a time that a client spent in a room. A client may have several
// stays in a room, on several hubs, one after the other.
type Stay struct {
	Client  string
	Resumed bool            // by Resume, not Join
	Since   fanout.Position // of Resume

	Joining, Joined Time // Join or Resume was called, has returned
	Leaving, Left   Time // Leave or Close likewise
	Complete        bool // it left after the last message of every publisher had arrived

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

// A Read is a call of History that succeeded or returned a gap.
type Read struct {
	Client     string
	Since      fanout.Position
	Begin, End Time
	Missed     int  // as the gap says
	Unknown    bool // there may be more
	Messages   []Event
}
