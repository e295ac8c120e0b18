package fanout

import (
	"hash/maphash"
	"slices"
	"unsafe"

	"github.com/fanoutgo/fanout/internal/wire"
)

// A filter keeps a message from some members of the room it is in. It is made
// once for a message, in time that does not depend on the number of members,
// and asked by each member when that reads the message.
type filter struct {
	copy   copyKey     // id 0: the message went to one room only
	except *exceptions // nil: nobody is left out
}

// copyKey names a message to several rooms: its copies have the same.
type copyKey struct{ hub, id uint64 }

// admits reports whether m gets the message. It is asked once, when m reads.
func (f *filter) admits(m *Member) bool {
	m.walk.AssertHeld()
	if f.except != nil && f.except.leaveOut(m) {
		return false
	}
	return f.copy.id == 0 || m.firstCopy(f.copy)
}

// size is about how many bytes the filter keeps alive.
func (f *filter) size() int {
	if f == nil || f.except == nil {
		return 0
	}
	return int(unsafe.Sizeof(exceptions{})) + 8*(len(f.except.members)+len(f.except.rooms))
}

// exceptions are who does not get a message. Rooms mean their members when the
// message arrived; each member knows what rooms it was in then.
type exceptions struct {
	members []uint64 // numbers of members of this hub, sorted
	rooms   []uint64 // hashes of names, sorted
	arrival uint64   // number among the arrivals that leave out rooms, from 1
}

// leaveOut reports whether a member is left out.
func (x *exceptions) leaveOut(m *Member) bool {
	m.walk.AssertHeld()
	if len(x.members) > 0 {
		if _, named := slices.BinarySearch(x.members, m.num); named {
			return true
		}
	}
	return len(x.rooms) > 0 && m.wasIn(x)
}

// names reports whether the members of a room are left out.
func (x *exceptions) names(room uint64) bool {
	if len(x.rooms) == 1 {
		return x.rooms[0] == room
	}
	_, named := slices.BinarySearch(x.rooms, room)
	return named
}

// A room is known by a hash of its name in exceptions: a list of names would
// keep the frame alive that it came in. Two of 2^32 rooms may have the same.
var roomSeed = maphash.MakeSeed()

func roomHash(name string) uint64 { return maphash.String(roomSeed, name) }

// A filterMaker makes the filters of a frame's messages.
type filterMaker struct {
	hub     *Hub
	arrival uint64 // 0: none of the messages has left out rooms yet

	// The lists that were read last: many messages in a row have the same.
	except, exceptRooms wire.List
	made                *exceptions
}

// make returns the filter of a message, which came from a hub; nil if it is for
// everyone. It locks nothing.
func (f *filterMaker) make(publisher uint64, v *wire.View) *filter {
	if v.ID == 0 && v.Except == nil && v.ExceptRooms == nil {
		return nil
	}
	x := f.exceptions(v)
	if v.ID == 0 && x == nil {
		return nil
	}
	return &filter{copyKey{publisher, v.ID}, x}
}

func (f *filterMaker) exceptions(v *wire.View) *exceptions {
	if v.Except == nil && v.ExceptRooms == nil {
		return nil
	}
	if slices.Equal(v.Except, f.except) && slices.Equal(v.ExceptRooms, f.exceptRooms) {
		return f.made
	}
	f.except, f.exceptRooms, f.made = v.Except, v.ExceptRooms, nil
	x := exceptions{members: f.hub.memberNumbers(v.Except), rooms: roomHashes(v.ExceptRooms)}
	if len(x.rooms) > 0 {
		if f.arrival == 0 {
			f.arrival = f.hub.leftOut.Add(1)
		}
		x.arrival = f.arrival
	}
	if len(x.members)+len(x.rooms) > 0 {
		f.made = &x
	}
	return f.made
}

// filterFor returns the filter of a message of the hub's own, or nil.
func (h *Hub) filterFor(v *wire.View) *filter {
	f := filterMaker{hub: h}
	return f.make(h.num, v)
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

// sortedSet sorts numbers, and leaves out repetitions, which it does not keep
// room for.
func sortedSet(numbers []uint64) []uint64 {
	slices.Sort(numbers)
	set := slices.Compact(numbers)
	if len(set) < cap(set)/2 {
		set = slices.Clone(set)
	}
	return set
}

// memberNumbers returns the numbers of the members in a list that have been
// given by this hub, sorted and without repetitions.
func (h *Hub) memberNumbers(list wire.List) (numbers []uint64) {
	for id := range list.All() {
		if n, ours := memberNumber(h.id, id); ours {
			if numbers == nil {
				numbers = make([]uint64, 0, min(list.Len(), 16))
			}
			numbers = append(numbers, n)
		}
	}
	return sortedSet(numbers)
}

// memberNumber returns the number in the ID of a member, as Member.ID writes
// it. It is not ok if that is none, or not one of the hub's. It allocates
// nothing.
func memberNumber(hub string, id []byte) (n uint64, ok bool) {
	const most = 13 // digits of 2^64 to the base of 36
	if len(id) < len(hub)+2 || len(id) > len(hub)+1+most || string(id[:len(hub)]) != hub || id[len(hub)] != '-' {
		return 0, false
	}
	digits := id[len(hub)+1:]
	if digits[0] == '0' {
		return 0, false // members are counted from 1
	}
	for _, c := range digits {
		d := uint64(c - '0')
		if c >= 'a' && c <= 'z' {
			d = uint64(c-'a') + 10
		} else if c < '0' || c > '9' {
			return 0, false
		}
		next := n*36 + d
		if n > (1<<64-1)/36 || next < d {
			return 0, false
		}
		n = next
	}
	return n, true
}

// A departure is a stay of a member in a room that is over: the member was
// there for the arrivals after since, up to left.
type departure struct{ room, since, left uint64 }

// maxDepartures bounds the departures that a member remembers while it has not
// read everything.
const maxDepartures = 64

// wasIn reports whether the member was in one of the rooms that are left out
// when the message arrived.
func (m *Member) wasIn(x *exceptions) bool {
	m.walk.AssertHeld()
	m.mu.Lock()
	defer m.mu.Unlock()
	for ms := range m.rooms.each {
		if x.names(roomHash(ms.room.name)) && ms.joinedBefore(x.arrival) {
			return true
		}
	}
	if e := m.more.Load(); e != nil {
		for _, d := range e.departures {
			if d.since < x.arrival && x.arrival <= d.left && x.names(d.room) {
				return true
			}
		}
	}
	return false
}

// joinedBefore reports whether a member had joined when a message arrived.
func (ms *membership) joinedBefore(arrival uint64) bool {
	ms.room.mu.Lock()
	defer ms.room.mu.Unlock()
	return ms.joined && ms.since() < arrival
}

// depart notes that the member is about to leave a room, if messages have
// arrived in its time that leave out rooms. Those that the member has not read
// yet may leave out this one.
func (m *Member) depart(ms *membership) {
	m.mu.AssertHeld()
	left := m.hub.leftOut.Load()
	if left == 0 {
		return
	}
	ms.room.mu.Lock()
	joined, since := ms.joined, ms.since()
	ms.room.mu.Unlock()
	if !joined || since == left {
		return
	}
	e := m.extras()
	if len(e.departures) == maxDepartures {
		e.departures = slices.Delete(e.departures, 0, 1)
	}
	e.departures = append(e.departures, departure{roomHash(ms.room.name), since, left})
}

// forgetDepartures forgets them if the member has read everything in all of its
// rooms.
func (m *Member) forgetDepartures() {
	m.walk.AssertHeld()
	e := m.more.Load()
	if e == nil || m.hub.leftOut.Load() == 0 {
		return
	}
	m.hub.mu.RLock()
	everyone := e.everyone
	m.hub.mu.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(e.departures) > 0 && (everyone == nil || everyone.hasReadAll()) && m.hasReadAll(e) {
		e.departures = nil
	}
}

// hasReadAll reports whether nothing is there for the member in its rooms, and
// no direct message.
func (m *Member) hasReadAll(e *extras) bool {
	m.walk.AssertHeld()
	m.mu.AssertHeld()
	if e.direct != nil && !e.direct.cursor.AtEnd() {
		return false
	}
	for ms := range m.rooms.each {
		if !ms.hasReadAll() {
			return false
		}
	}
	return true
}

// hasReadAll reports whether nothing is there for the member in the room.
func (ms *membership) hasReadAll() bool {
	ms.member.walk.AssertHeld()
	joined, behind := ms.standing()
	return !behind && (!joined || ms.cursor.AtEnd())
}

// standing reports whether the membership is in its room, and whether there is
// something, or will be, that comes before what is in the room's log.
func (ms *membership) standing() (joined, behind bool) {
	ms.member.walk.AssertHeld()
	ms.room.mu.Lock()
	defer ms.room.mu.Unlock()
	return ms.joined, ms.place != nil && ms.place.replay != nil
}
