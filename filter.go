package fanout

import (
	"sync"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
)

// A filter keeps a message from some members of the room it is in. Members and
// rooms to be left out are looked up when the message arrives, so it does not
// matter how late a member reads it.
type filter struct {
	except map[*Member]struct{}
	copy   *multi
}

// admits reports whether m gets the message. It is asked once, when m reads.
func (f *filter) admits(m *Member) bool {
	if _, left := f.except[m]; left {
		return false
	}
	return f.copy == nil || f.copy.first(m)
}

// filterFor returns the filter for a message that came from a hub, or nil. It
// locks rooms, so the caller has none locked.
func (h *Hub) filterFor(hub uint64, m *wire.Message) *filter {
	if m.ID == 0 && len(m.Except) == 0 && len(m.ExceptRooms) == 0 {
		return nil
	}
	f := &filter{except: h.excepted(m.Except, m.ExceptRooms)}
	if m.ID != 0 {
		f.copy = h.copies.get(h, copyKey{hub, m.ID})
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

// A multi is a message to several rooms. Its copies in the rooms' logs share
// it; it knows the members who have had one.
type multi struct {
	mu  sync.Mutex // guards had
	had map[*Member]struct{}
}

// first reports whether m has not had a copy yet, and notes that it has now.
// A member of a single room is not noted, it cannot meet another copy.
func (c *multi) first(m *Member) bool {
	m.mu.Lock()
	several := m.rooms.several()
	m.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, had := c.had[m]; had {
		return false
	}
	if several {
		if c.had == nil {
			c.had = make(map[*Member]struct{})
		}
		c.had[m] = struct{}{}
	}
	return true
}

// copyKey names a message to several rooms.
type copyKey struct{ hub, id uint64 }

// copies finds the multi that the copies of a message share. The janitor drops
// what is too old for another copy to come.
type copies struct {
	mu    sync.Mutex // guards all
	byKey map[copyKey]*multi
	queue []agedCopy // in the order of their time
}

type agedCopy struct {
	key copyKey
	at  time.Time
}

// copyAge is how long after the first copy another may come: rooms live on
// different nodes, and a publish is retried for Options.PublishTimeout.
const copyAge = 30 * time.Second

func (c *copies) get(h *Hub, key copyKey) *multi {
	c.mu.Lock()
	m := c.byKey[key]
	if m == nil {
		m = new(multi)
		if c.byKey == nil {
			c.byKey = make(map[copyKey]*multi)
		}
		c.byKey[key] = m
		c.queue = append(c.queue, agedCopy{key, time.Now()})
		if len(c.queue) == 1 {
			defer h.janitor.wake()
		}
	}
	c.mu.Unlock()
	return m
}

// sweep drops what is too old, and says when the next will be.
func (c *copies) sweep(now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		if due := c.queue[0].at.Add(copyAge); due.After(now) {
			return due
		}
		delete(c.byKey, c.queue[0].key)
		c.queue = c.queue[1:]
	}
	c.queue, c.byKey = nil, nil
	return time.Time{}
}
