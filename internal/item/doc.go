// Package item has the entries of a room's log: messages, and filters that say
// for which members of the room each message is.
//
// A message that is for everyone in the room has no filter. Another one has a
// [Filter], which is made once for the message, in time that does not depend on
// the number of members, and is asked whenever a member reads the message:
//
//	Excludes(number)                 Except names the member
//	ExcludesRooms, ExcludesRoom      ExceptRooms names a room in which the
//	                                 member was when the message arrived: it
//	                                 is there still, or was by its Stays
//	Copy                             the message went to several rooms: the
//	                                 member gets the copy that it reads first,
//	                                 see Copies
//	Change                           it is no message, but a change of presence
//
// Members are known here by their numbers, rooms by a hash of their names, and
// the time when a message arrived by its number among the arrivals that left
// out rooms. A list of names would keep alive the frame in which it came.
package item

import "github.com/fanoutgo/fanout/adapter"

// An Entry is a message in a log.
type Entry struct {
	Data     []byte
	Sender   string
	At       adapter.Position // zero: the message is not kept
	Filter   *Filter          // nil: it is for everyone
	Volatile bool
}

// Counts implements roomlog.Item: whether missing the message is a loss.
func (e Entry) Counts() bool {
	return !e.Volatile && (e.Filter == nil || e.Filter.except != change)
}

// Place implements replay.Item: where the entry is in the backend's history.
func (e Entry) Place() adapter.Position { return e.At }

// Size implements roomlog.Item: about the number of bytes that the entry keeps
// alive.
func (e Entry) Size() int { return len(e.Data) + e.Filter.size() }
