package presence

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
)

// Params say how a room is announced.
type Params struct {
	Grace time.Duration // how long a user is held whose connection has ended
	Limit int           // the most connections of a room, on all hubs, that are listed
}

const (
	// perHub is the window for each hub in the room: together the hubs announce
	// some 17 times a second at most. They announce more often only if there are
	// so many hubs that maxWindow limits the window, or if the changes of a window
	// take more than maxBytes: then the next announcement does not wait.
	perHub    = 60 * time.Millisecond
	minWindow = 100 * time.Millisecond
	maxWindow = 2 * time.Second

	// An announcement that could not be published is repeated after firstAgain,
	// then after twice that, up to maxAgain.
	firstAgain = 100 * time.Millisecond
	maxAgain   = 5 * time.Second
	// Once nothing has changed for confirmAfter the last announcement is
	// repeated once: a hub that missed it without being told notices then.
	confirmAfter = 5 * time.Second

	maxBytes  = 48 << 10 // of the entries of an announcement
	maxLeft   = 2048     // members that leave in one
	maxSample = 16       // members in a sample
)

// A Local announces the members of a room that are on this hub.
type Local struct {
	params Params
	life   uint64
	seq    uint64
	mode   control.Mode
	hubs   int // in the room

	members map[uint64]*member // by number: those that are here, held, or not yet announced as left
	users   map[string]*user   // that have members
	changed []uint64           // numbers of members to be announced, in order
	held    []holding          // in the order of their times

	count   int // of members that are announced
	digest  uint64
	turned  bool // the mode has changed, and that is not announced yet
	sending bool // an announcement is under way
	last    time.Time
	more    bool // changes did not fit into the last announcement
	again   time.Time
	delay   time.Duration // until again, the next time
	// confirmed is set when the last announcement has been repeated.
	confirmed bool
}

// A holding is a member that is held, and until when.
type holding struct {
	number uint64
	until  time.Time
}

// NewLocal returns a Local with no members. Life is larger than that of all
// earlier ones of the same room and hub.
func NewLocal(life uint64, p Params) *Local {
	return &Local{
		params: p, life: life, mode: control.ModeList, hubs: 1,
		members: make(map[uint64]*member), users: make(map[string]*user),
	}
}

// Join takes a member into the room. Its bytes are kept. A member that left may
// join again, as the same user. If another connection of its user is held, that
// one is announced as left together with the new one, so for other members
// nothing happens.
func (l *Local) Join(e control.Entry) {
	m := l.members[e.Number]
	if m == nil {
		m = &member{fate: ended, user: l.userOf(e.Name)} // its fate becomes here below
		l.members[e.Number] = m
	}
	m.Entry = e
	l.change(m) // announced before the one that was held
	var old *member
	if m.user != nil {
		old = m.user.held
	}
	m.become(here)
	if old != nil && old != m {
		l.end(old)
	}
}

// Leave takes a member out of the room.
func (l *Local) Leave(number uint64, now time.Time) {
	m := l.members[number]
	if m == nil || m.fate != here {
		return
	}
	if u := m.user; l.params.Grace <= 0 || u == nil || u.announced == 0 || u.here > 1 {
		l.end(m) // it has no user, or was not announced, or its user is still here
		return
	}
	m.become(held)
	m.until = now.Add(l.params.Grace)
	l.held = append(l.held, holding{number, m.until})
	if len(l.held) > max(l.params.Limit, 1) {
		l.release()
	}
}

// release ends the member that has been held for longest.
func (l *Local) release() {
	first := l.held[0]
	if m := l.members[first.number]; m != nil && m.fate == held && m.until.Equal(first.until) {
		l.end(m)
	}
	l.held = l.held[1:]
}

// end marks a member to be announced as left.
func (l *Local) end(m *member) {
	m.become(ended)
	if m.announced {
		l.change(m)
	} else {
		l.forget(m) // it was not announced
	}
}

// SetInfo replaces the info of a member. The bytes are kept.
func (l *Local) SetInfo(number uint64, info []byte) {
	if m := l.members[number]; m != nil && m.fate == here && !bytes.Equal(m.Data, info) {
		m.Data = info
		l.change(m)
	}
}

func (l *Local) change(m *member) {
	if !m.changed {
		m.changed = true
		l.changed = append(l.changed, m.Number)
	}
}

// See takes the number of hubs in the room and of connections on all hubs, as
// the Follower knows them.
func (l *Local) See(hubs, total int) {
	l.hubs = max(hubs, 1)
	mode := l.mode
	switch {
	case total > l.params.Limit:
		mode = control.ModeSummary
	case total <= max(l.params.Limit*3/4, 1):
		mode = control.ModeList
	}
	if mode != l.mode {
		l.mode = mode
		l.turned = l.seq > 0
	}
}

func (l *Local) window() time.Duration {
	return min(max(perHub*time.Duration(l.hubs), minWindow), maxWindow)
}

// Next returns when Announce is to be called; zero if there is nothing to
// announce. The time may have passed.
func (l *Local) Next() (at time.Time) {
	earliest := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if len(l.held) > 0 {
		at = l.held[0].until
	}
	switch {
	case l.sending: // Sent comes first
	case l.more:
		earliest(l.last)
	case len(l.changed) > 0 || l.turned:
		earliest(l.last.Add(l.window()))
	case !l.again.IsZero():
		earliest(l.again)
	}
	return at
}

// Announce returns the announcement that is due, or nil. It returns no other
// one until Sent is called.
func (l *Local) Announce(now time.Time) *control.Announcement {
	for len(l.held) > 0 && !now.Before(l.held[0].until) {
		l.release()
	}
	due := len(l.changed) > 0 || l.turned
	switch {
	case l.sending:
		return nil
	case due && (l.more || !now.Before(l.last.Add(l.window()))):
		return l.announce(now)
	case !l.again.IsZero() && !now.Before(l.again):
		l.sending, l.confirmed = true, true
		a := l.header()
		a.Again = true
		return a
	}
	return nil
}

func (l *Local) header() *control.Announcement {
	a := &control.Announcement{Life: l.life, Seq: l.seq, Mode: l.mode, Count: uint64(l.count)}
	if l.mode == control.ModeList {
		a.Digest = l.digest
	}
	return a
}

// announce makes the next announcement, with as many changes as fit.
func (l *Local) announce(now time.Time) *control.Announcement {
	var joined []control.Entry
	var left []uint64
	size, done := 0, 0
	for _, number := range l.changed {
		m := l.members[number]
		if m != nil && m.fate != ended {
			if size += m.Size(); size > maxBytes && len(joined) > 0 || len(joined) == control.MaxEntries {
				break
			}
		} else if len(left) == maxLeft {
			break
		}
		done++
		if m == nil {
			continue // it came and went
		}
		m.changed = false
		if l.apply(m) {
			joined = append(joined, m.Entry)
		} else {
			left = append(left, number)
		}
	}
	l.changed = l.changed[done:]
	l.more = len(l.changed) > 0
	if !l.more {
		l.changed = nil
	}
	if len(joined)+len(left) == 0 && !l.turned {
		return nil
	}
	l.seq++
	l.last, l.sending, l.turned, l.again, l.confirmed = now, true, false, time.Time{}, false
	a := l.header()
	if l.mode == control.ModeSummary {
		a.Joined = l.sample()
		return a
	}
	a.Joined, a.Left = joined, left
	return a
}

// apply updates the announced state of a member. It returns false if the member
// has left.
func (l *Local) apply(m *member) bool {
	if m.announced {
		l.digest ^= m.sum
	} else {
		l.announced(m, 1)
	}
	if m.fate == ended {
		l.announced(m, -1)
		l.forget(m)
		return false
	}
	m.announced, m.shown, m.sum = true, m.Entry, sum(&m.Entry)
	l.digest ^= m.sum
	return true
}

// sample returns some of the members that are announced.
func (l *Local) sample() (some []control.Entry) {
	for _, m := range l.members { // in no particular order
		if m.announced {
			if some = append(some, m.shown); len(some) == maxSample {
				break
			}
		}
	}
	return some
}

// Sent says whether the announcement that is under way was published. If other
// hubs may not have it, it is repeated without its changes: hubs that missed it
// ask.
func (l *Local) Sent(ok bool, now time.Time) {
	l.sending = false
	switch {
	case ok && l.confirmed:
		l.again, l.delay = time.Time{}, 0
	case ok:
		l.again, l.delay = now.Add(confirmAfter), 0
	default:
		l.confirmed = false
		l.delay = min(max(2*l.delay, firstAgain), maxAgain)
		l.again = now.Add(l.delay)
	}
}

// Repeat asks for the last announcement to be repeated soon: other hubs may
// have missed it, or have taken this hub for gone.
func (l *Local) Repeat(now time.Time) {
	if l.seq > 0 {
		l.again, l.confirmed = now.Add(firstAgain), false
	}
}

// Idle reports whether the Local knows of no members and has nothing to
// announce: it can be forgotten.
func (l *Local) Idle() bool {
	return len(l.members) == 0 && len(l.changed) == 0 && !l.sending && l.again.IsZero()
}

// Snapshot returns the members that are announced. If the question shows that
// the asker's list is right, the answer only says so.
func (l *Local) Snapshot(q *control.Question) *control.Answer {
	h := l.header()
	a := &control.Answer{
		ID: q.ID, Attempt: q.Attempt, Status: control.StatusLast, Count: h.Count,
		Life: h.Life, Seq: h.Seq, Digest: h.Digest, Mode: h.Mode,
	}
	switch {
	case q.Life == a.Life && q.Seq == a.Seq && q.Digest == a.Digest:
		a.Status = control.StatusSame
	case l.mode == control.ModeSummary:
		a.Entries = l.sample()
	default:
		for _, m := range l.members {
			if m.announced {
				a.Entries = append(a.Entries, m.shown)
			}
		}
		slices.SortFunc(a.Entries, func(x, y control.Entry) int { return cmp.Compare(x.Number, y.Number) })
	}
	return a
}
