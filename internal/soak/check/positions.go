package check

import (
	"fmt"

	"github.com/fanoutgo/fanout"
)

func (e *Event) String() string {
	switch {
	case e.Gap && e.Unknown:
		return fmt.Sprintf("a gap of %d or more", e.Missed)
	case e.Gap:
		return fmt.Sprintf("a gap of %d", e.Missed)
	case e.Position.IsZero():
		return e.Message.String()
	}
	return fmt.Sprintf("%v at %v", e.Message, e.Position)
}

func (m ID) String() string { return fmt.Sprintf("message %d.%d", m.Publisher, m.Number) }

// A place is a position without its methods, for use as a key.
type place = fanout.Position

// positions checks that positions grow, that a position belongs to one message
// for all clients, and that a message has one position. A message that the
// servers lost after some clients had received it, and got again, may have two.
func (c *roomCheck) positions() {
	c.places = make(map[place]ID)
	where := make([]place, c.size)
	for _, ch := range c.chains {
		last := ch.since
		for i := range ch.events {
			if e := &ch.events[i]; !e.Gap {
				c.position(ch, e, &last, where)
			}
		}
	}
}

func (c *roomCheck) position(ch *chain, e *Event, last *place, where []place) {
	if c.Keeps == 0 || e.Position.IsZero() {
		if c.Keeps > 0 || !e.Position.IsZero() {
			ch.wrong = true
			c.fail(Positions, ch.client, e.At, "got %s, in a room that keeps %d messages", e, c.Keeps)
		}
		return
	}
	if !last.Before(e.Position) {
		ch.wrong = true
		c.fail(Positions, ch.client, e.At, "got %s after a message at %v", e, *last)
	}
	*last = e.Position
	if other, known := c.places[e.Position]; known && other != e.Message {
		c.fail(Positions, ch.client, e.At, "got %s, where others got %v", e, other)
		return
	}
	c.places[e.Position] = e.Message
	n := c.of(e.Message)
	if where[n].IsZero() {
		where[n] = e.Position
	}
	if where[n] != e.Position && !c.during(c.publication(e.Message).Begin, e.At, lossy) {
		c.fail(Positions, ch.client, e.At, "got %s, which others got at %v", e, where[n])
	}
}
