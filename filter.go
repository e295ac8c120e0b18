package fanout

import (
	"slices"

	"github.com/fanoutgo/fanout/internal/wire"
)

// A filter keeps a message from some members of the room it is in. Members and
// rooms to be left out are looked up when the message arrives, so it does not
// matter how late a member reads it.
type filter struct {
	except map[*Member]struct{}
	copy   copyKey // zero: it went to one room only
}

// admits reports whether m gets the message. It is asked once, when m reads.
func (f *filter) admits(m *Member) bool {
	if _, left := f.except[m]; left {
		return false
	}
	return f.copy.id == 0 || m.extras().copies.first(f.copy)
}

// filterFor returns the filter for a message that came from a hub, or nil. It
// locks rooms, so the caller has none locked.
func (h *Hub) filterFor(hub uint64, m *wire.Message) *filter {
	if m.ID == 0 && len(m.Except) == 0 && len(m.ExceptRooms) == 0 {
		return nil
	}
	f := &filter{except: h.excepted(m.Except, m.ExceptRooms)}
	if m.ID != 0 {
		f.copy = copyKey{hub, m.ID}
	}
	return f
}

// excepted returns the members of this hub who are named or are in a room that
// is named; nil if there are none.
func (h *Hub) excepted(members, rooms []string) map[*Member]struct{} {
	if len(members) == 0 && len(rooms) == 0 {
		return nil
	}
	set := make(map[*Member]struct{})
	for _, id := range members {
		if m := h.member(id); m != nil {
			set[m] = struct{}{}
		}
	}
	for _, room := range rooms {
		if rs := h.lookup(h.names.Room(room)); rs != nil {
			rs.addMembers(set)
		}
	}
	return set
}

// copyKey names a message to several rooms: its copies have the same.
type copyKey struct{ hub, id uint64 }

// copies are the messages to several rooms that a member got last, so that it
// gets no second copy of one. Rooms take turns, so few others come between two
// copies; what is older than maxCopies is forgotten.
type copies struct {
	recent []copyKey // grows to maxCopies, then a ring
	next   int
}

const maxCopies = 256

// first reports whether a copy is the first of its message, and notes it.
func (c *copies) first(key copyKey) bool {
	if slices.Contains(c.recent, key) {
		return false
	}
	if len(c.recent) < maxCopies {
		c.recent = append(c.recent, key)
		return true
	}
	c.recent[c.next] = key
	c.next = (c.next + 1) % maxCopies
	return true
}
