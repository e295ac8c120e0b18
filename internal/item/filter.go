package item

import (
	"hash/maphash"
	"slices"
	"unsafe"

	"github.com/fanoutgo/fanout/internal/wire"
)

// A Filter keeps a message from some members of the room it is in. It does not
// change.
type Filter struct {
	copy   CopyKey     // ID 0: the message went to one room only
	except *exceptions // nil: nobody is left out
}

// A CopyKey names a message to several rooms: its copies have the same.
type CopyKey struct{ Hub, ID uint64 }

// Excludes reports whether the member with a number is left out by name.
func (f *Filter) Excludes(member uint64) bool {
	if f.except == nil {
		return false
	}
	_, named := slices.BinarySearch(f.except.members, member)
	return named
}

// ExcludesRooms reports whether members of rooms are left out: those that were
// there at the arrival with this number.
func (f *Filter) ExcludesRooms() (arrival uint64, some bool) {
	if f.except == nil || len(f.except.rooms) == 0 {
		return 0, false
	}
	return f.except.arrival, true
}

// ExcludesRoom reports whether the members of a room are left out.
func (f *Filter) ExcludesRoom(room uint64) bool {
	if f.except == nil {
		return false
	}
	if rooms := f.except.rooms; len(rooms) == 1 {
		return rooms[0] == room
	}
	_, named := slices.BinarySearch(f.except.rooms, room)
	return named
}

// Copy returns the key of a message that went to several rooms. It is not ok if
// this one did not.
func (f *Filter) Copy() (key CopyKey, ok bool) { return f.copy, f.copy.ID != 0 && f.except != change }

// change is what a filter of Numbered has instead of exceptions.
var change = new(exceptions)

// Numbered returns the filter of an entry that is no message: the change of
// presence with a number. Members that have a later list do not get it.
func Numbered(number uint64) *Filter { return &Filter{CopyKey{ID: number}, change} }

// Change returns the number of a change of presence; it is not ok for a
// message.
func (f *Filter) Change() (number uint64, ok bool) { return f.copy.ID, f.except == change }

// size is about the number of bytes that the filter keeps alive.
func (f *Filter) size() int {
	if f == nil || f.except == nil || f.except == change {
		return 0
	}
	return int(unsafe.Sizeof(exceptions{})) + 8*(len(f.except.members)+len(f.except.rooms))
}

// exceptions are the members that do not get a message. Rooms stand for those
// that were in them when the message arrived.
type exceptions struct {
	members []uint64 // numbers of members of this hub, sorted
	rooms   []uint64 // hashes of names, sorted
	arrival uint64   // number among the arrivals that leave out rooms, from 1
}

var roomSeed = maphash.MakeSeed()

// RoomHash returns the hash by which a filter knows a room. Two of 2^32 rooms
// may have the same.
func RoomHash(name string) uint64 { return maphash.String(roomSeed, name) }

// A Home is the hub for whose members filters are made.
type Home struct {
	ID      string        // the first part of its members' IDs
	Arrival func() uint64 // numbers the arrivals that leave out rooms, from 1
}

// Own returns a message of the hub itself, whose number is given, as an entry
// without a place in a history. It keeps nothing of m.
func (h *Home) Own(hub uint64, m *wire.Message) Entry {
	v := m.View()
	filters := Maker{Home: h}
	return Entry{Data: CloneData(m.Data), Sender: h.ID, Volatile: m.Volatile, Filter: filters.Make(hub, &v)}
}

// CloneData returns a copy of data as members get it: never nil, so that an
// empty message looks the same whichever way it came.
func CloneData(data []byte) []byte { return append([]byte{}, data...) }

// A Maker makes the filters of one arrival: of the messages of a frame. It is
// made with its Home, and used by one goroutine.
type Maker struct {
	Home    *Home
	arrival uint64 // 0: none of the messages has left out rooms yet

	// The lists that were read last: many messages in a row have the same.
	except, exceptRooms wire.List
	made                *exceptions
}

// Make returns the filter of a message that a hub published; nil if the message
// is for everyone.
func (f *Maker) Make(publisher uint64, v *wire.View) *Filter {
	if v.ID == 0 && v.Except == nil && v.ExceptRooms == nil {
		return nil
	}
	x := f.exceptions(v)
	if v.ID == 0 && x == nil {
		return nil
	}
	return &Filter{CopyKey{publisher, v.ID}, x}
}

func (f *Maker) exceptions(v *wire.View) *exceptions {
	if v.Except == nil && v.ExceptRooms == nil {
		return nil
	}
	if slices.Equal(v.Except, f.except) && slices.Equal(v.ExceptRooms, f.exceptRooms) {
		return f.made
	}
	f.except, f.exceptRooms, f.made = v.Except, v.ExceptRooms, nil
	x := exceptions{members: MemberNumbers(f.Home.ID, v.Except), rooms: roomHashes(v.ExceptRooms)}
	if len(x.rooms) > 0 {
		if f.arrival == 0 {
			f.arrival = f.Home.Arrival()
		}
		x.arrival = f.arrival
	}
	if len(x.members)+len(x.rooms) > 0 {
		f.made = &x
	}
	return f.made
}

// roomHashes returns the hashes of the rooms in a list, sorted and without
// repetitions.
func roomHashes(list wire.List) []uint64 {
	if list == nil {
		return nil
	}
	hashes := make([]uint64, 0, list.Len())
	for name := range list.All() {
		hashes = append(hashes, maphash.Bytes(roomSeed, name))
	}
	return sortedSet(hashes)
}

// sortedSet sorts numbers and drops repetitions. It keeps no memory for those.
func sortedSet(numbers []uint64) []uint64 {
	slices.Sort(numbers)
	set := slices.Compact(numbers)
	if len(set) < cap(set)/2 {
		set = slices.Clone(set)
	}
	return set
}
