package presence

import (
	"time"

	"github.com/fanoutgo/fanout/internal/control"
)

// A member is one connection on this hub.
type member struct {
	control.Entry
	user      *user // nil: it has none
	fate      fate
	until     time.Time // held: until then
	changed   bool      // it is among Local.changed
	announced bool
	shown     control.Entry // as it was announced
	sum       uint64        // of shown, in the digest
}

// A user has counts, so that nothing takes longer if it has more connections.
type user struct {
	here      int     // members whose fate is here
	announced int     // members that are announced
	held      *member // the member that is held; nil while others are here
}

// A fate is what is to become of a member.
type fate uint8

const (
	here fate = iota
	// held means that the connection has ended, and that the user may come
	// back.
	held
	// ended means that the member is to be announced as left.
	ended
)

// userOf returns the user of a name, and makes it if there is none. It returns
// nil if the name is empty.
func (l *Local) userOf(name []byte) *user {
	if len(name) == 0 {
		return nil
	}
	u := l.users[string(name)]
	if u == nil {
		u = new(user)
		l.users[string(name)] = u
	}
	return u
}

// become changes the fate of a member.
func (m *member) become(next fate) {
	if u := m.user; u != nil {
		switch m.fate {
		case here:
			u.here--
		case held:
			u.held = nil
		}
		switch next {
		case here:
			u.here++
		case held:
			u.held = m
		}
	}
	m.fate = next
}

// announced adds a member to the announced ones, or removes it.
func (l *Local) announced(m *member, by int) {
	l.count += by
	if m.user != nil {
		m.user.announced += by
	}
}

// forget removes a member that is not announced.
func (l *Local) forget(m *member) {
	delete(l.members, m.Number)
	if u := m.user; u != nil && *u == (user{}) {
		delete(l.users, string(m.Name))
	}
}
