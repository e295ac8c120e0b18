package seats

import (
	"slices"
	"time"
)

const (
	// BatchSeats is the most seats that one call of Next makes commands for.
	BatchSeats = 4096
	// CommandNames is the most channels that one command names. They share a
	// slot.
	CommandNames = 256
)

// A seat is a channel on a connection.
type seat[S comparable] struct {
	channel string
	sub     S // the subscriber that wants the channel; zero: none
	slot    uint16
	state   State
	dirty   bool // it is on the list for Next
	probe   bool // the table itself wants the channel; see Probe
	alone   bool // it gets a command of its own
}

func (st *seat[S]) taken() bool { return st.sub != *new(S) }

func (st *seat[S]) wanted() bool { return st.taken() || st.probe }

// A Command is one SUBSCRIBE or UNSUBSCRIBE, or its sharded counterpart.
type Command[S comparable] struct {
	Leave    bool
	Channels []string // of one slot
	seats    []*seat[S]
}

// A Table has the seats of one link. S is the type of subscribers; the zero
// value means none. One goroutine at a time uses a Table.
type Table[S comparable] struct {
	seats map[string]*seat[S]
	dirty []*seat[S]
	later []postponed[S]
}

// A postponed seat is looked at again when it is due.
type postponed[S comparable] struct {
	seat *seat[S]
	due  time.Time
}

// New returns an empty table.
func New[S comparable]() *Table[S] {
	return &Table[S]{seats: make(map[string]*seat[S])}
}

// touch puts a seat on the list for Next.
func (t *Table[S]) touch(st *seat[S]) {
	if !st.dirty {
		st.dirty = true
		t.dirty = append(t.dirty, st)
	}
}

// Want gives s the seat of a channel, which another subscriber may lose by
// that.
func (t *Table[S]) Want(s S, channel string, slot uint16) {
	st := t.add(channel, slot)
	st.sub = s
	if st.state == On {
		st.state = Again
	}
	t.touch(st)
}

func (t *Table[S]) add(channel string, slot uint16) *seat[S] {
	st := t.seats[channel]
	if st == nil {
		st = &seat[S]{channel: channel, slot: slot}
		t.seats[channel] = st
	}
	return st
}

// Split gives all seats the slots of their channels. It is for a server that
// turned out to have slots, so that commands name channels of one slot from now
// on.
func (t *Table[S]) Split(slot func(channel string) uint16) {
	for _, st := range t.seats {
		st.slot = slot(st.channel)
	}
}

// Release takes the seat away from s, if s has it.
func (t *Table[S]) Release(s S, channel string) {
	if st := t.seats[channel]; st != nil && st.sub == s {
		st.sub = *new(S)
		t.touch(st)
	}
}

// Renew makes Next ask for a new confirmation of the subscription of s, if it
// is confirmed.
func (t *Table[S]) Renew(s S, channel string) {
	if st := t.seats[channel]; st != nil && st.sub == s && st.state == On {
		st.state = Again
		t.touch(st)
	}
}

// Connected begins a connection: Next asks for everything that is wanted.
func (t *Table[S]) Connected() {
	for _, st := range t.seats {
		t.touch(st)
	}
}

// Broke ends a connection, and with it all subscriptions. It returns the
// subscribers that keep their seats.
func (t *Table[S]) Broke() (lost []S) {
	t.dirty, t.later = nil, nil
	for channel, st := range t.seats {
		st.state, st.dirty = None, false
		if st.taken() {
			lost = append(lost, st.sub)
		} else {
			delete(t.seats, channel)
		}
	}
	return lost
}

// Next returns the next commands to send, none if no seat is dirty. All of them
// must be answered, by Replied or Left, before Next is called again.
func (t *Table[S]) Next() []*Command[S] {
	var commands []*Command[S]
	type key struct {
		slot  uint16
		leave bool
	}
	open := make(map[key]*Command[S])
	n := min(len(t.dirty), BatchSeats)
	for _, st := range t.dirty[:n] {
		st.dirty = false
		if !t.advance(st) {
			continue
		}
		k := key{st.slot, st.state == Leaving}
		c := open[k]
		if c == nil || len(c.Channels) == CommandNames || st.alone {
			c = &Command[S]{Leave: k.leave}
			if !st.alone {
				open[k] = c
			}
			commands = append(commands, c)
		}
		c.seats = append(c.seats, st)
		c.Channels = append(c.Channels, st.channel)
	}
	if t.dirty = t.dirty[n:]; len(t.dirty) == 0 {
		t.dirty = nil
	}
	return commands
}

// advance changes the state of a seat to that of a command that is about to be
// sent. It reports false if there is nothing to send.
func (t *Table[S]) advance(st *seat[S]) bool {
	switch {
	case st.wanted() && (st.state == None || st.state == Again):
		st.state = Asked
	case !st.wanted() && st.state == None:
		if t.seats[st.channel] == st {
			delete(t.seats, st.channel)
		}
		return false
	case !st.wanted() && st.state != Leaving:
		st.state = Leaving
	default:
		return false
	}
	return true
}

// Left notes that a command that unsubscribes has been answered. An error
// counts as success: either the server has no subscription, or the link closes
// the connection.
func (t *Table[S]) Left(c *Command[S]) {
	for _, st := range c.seats {
		st.state = None
		t.touch(st)
	}
}

// Replied notes the reply to a command that subscribes. It returns the
// subscribers for which the link has to act on the reply; see Reply.
func (t *Table[S]) Replied(c *Command[S], r Reply) (failed []S) {
	if r == Accepted {
		return nil
	}
	split := r == Refused && len(c.seats) > 1
	for _, st := range c.seats {
		st.state = None
		switch {
		case split && st.taken():
			st.alone = true
			t.touch(st)
		case st.taken():
			failed = append(failed, st.sub)
		default:
			st.probe = false
			t.touch(st)
		}
	}
	return failed
}

// Confirmed notes that the server has confirmed a channel. It reports whether
// the confirmation was asked for, and by which subscriber; s is zero if that
// one has released the seat meanwhile.
func (t *Table[S]) Confirmed(channel string) (s S, asked bool) {
	st := t.seats[channel]
	if st == nil || st.state != Asked {
		return s, false
	}
	st.state = On
	return st.sub, true
}

// Stands reports whether the server has confirmed the channel for s, and
// nothing is known to contradict that.
func (t *Table[S]) Stands(s S, channel string) bool {
	st := t.seats[channel]
	return st != nil && st.sub == s && st.state == On
}

// Ended notes that the server has said that a subscription has ended. It
// reports whether the server has ended it by itself, and whose subscription it
// was. In that case the channel is asked for again, which leads to a
// redirection to its new home.
func (t *Table[S]) Ended(channel string) (s S, unsolicited bool) {
	st := t.seats[channel]
	if st == nil || st.state != On && st.state != Again {
		return s, false
	}
	st.state = None
	t.touch(st)
	return st.sub, true
}

// Postpone makes Next look at a channel again when it is due.
func (t *Table[S]) Postpone(channel string, due time.Time) {
	if st := t.seats[channel]; st != nil {
		t.later = append(t.later, postponed[S]{st, due})
	}
}

// Due returns when the first of the postponed channels is due; zero if there is
// none.
func (t *Table[S]) Due() (due time.Time) {
	for _, p := range t.later {
		if due.IsZero() || p.due.Before(due) {
			due = p.due
		}
	}
	return due
}

// Resume makes Next look at the channels that are due by now.
func (t *Table[S]) Resume(now time.Time) {
	t.later = slices.DeleteFunc(t.later, func(p postponed[S]) bool {
		if p.due.After(now) {
			return false
		}
		t.touch(p.seat)
		return true
	})
}

// Probe returns a confirmed channel of the table's own, so that a message that
// is published there arrives. If there is none, Probe returns "" and adds one
// in the slot of a confirmed channel, the host; name returns its name. The
// confirmation that Next asks for serves as a probe then. Probe adds none if
// nothing is confirmed.
func (t *Table[S]) Probe(name func(host string) string) (channel string, added bool) {
	var host *seat[S]
	for _, st := range t.seats {
		if st.probe && st.state == On {
			return st.channel, false
		}
		if st.taken() && st.state == On {
			host = st
		}
	}
	if host == nil {
		return "", false
	}
	st := t.add(name(host.channel), host.slot)
	st.probe = true
	t.touch(st)
	return "", true
}

// Subscriber returns the subscriber that has the seat of a channel; the zero
// value if there is none.
func (t *Table[S]) Subscriber(channel string) (s S) {
	if st := t.seats[channel]; st != nil {
		s = st.sub
	}
	return s
}

// Subscribers returns all subscribers that have seats.
func (t *Table[S]) Subscribers() (all []S) {
	for _, st := range t.seats {
		if st.taken() {
			all = append(all, st.sub)
		}
	}
	return all
}

// Unused reports whether no subscriber has a seat.
func (t *Table[S]) Unused() bool {
	for _, st := range t.seats {
		if st.taken() {
			return false
		}
	}
	return true
}

// AnyChannel returns the channel of some seat; "" if there is none.
func (t *Table[S]) AnyChannel() string {
	for channel := range t.seats {
		return channel
	}
	return ""
}
