package item

import "slices"

// maxStays bounds the stays that a member remembers while it has not read
// everything.
const maxStays = 64

// Stays are a member's stays in rooms that are over. Messages that arrived
// during one of them, and that the member has not read yet, may leave out its
// room. The zero value is ready to use.
type Stays struct{ list []stay }

// A stay lasted for the arrivals after since, up to left.
type stay struct{ room, since, left uint64 }

// Add adds a stay in a room, for the arrivals after since, up to left. With
// more than 64 the oldest is forgotten.
func (s *Stays) Add(room, since, left uint64) {
	if len(s.list) == maxStays {
		s.list = slices.Delete(s.list, 0, 1)
	}
	s.list = append(s.list, stay{room, since, left})
}

// Exclude reports whether the member was, when a message arrived, in a room
// whose members the message leaves out.
func (s *Stays) Exclude(f *Filter) bool {
	arrival, some := f.ExcludesRooms()
	if !some {
		return false
	}
	for _, one := range s.list {
		if one.since < arrival && arrival <= one.left && f.ExcludesRoom(one.room) {
			return true
		}
	}
	return false
}

// None reports whether there are no stays.
func (s *Stays) None() bool { return len(s.list) == 0 }

// Clear forgets all stays.
func (s *Stays) Clear() { s.list = nil }
