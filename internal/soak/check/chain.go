package check

import "github.com/fanoutgo/fanout"

// A chain is what a client received in a room without interruption: one stay,
// and all stays that resumed it where it ended.
type chain struct {
	client string
	first  *Stay
	early  bool // it began before the first message was published
	ended  bool // it ended after the last message had arrived
	since  fanout.Position
	events []Event
	stays  []int // index of the first event of each stay
	at     []int // by message: its index in events, or -1
	wrong  bool  // positions are wrong, so holes prove nothing
}

// buildChains joins stays to chains, without events that do not belong to them:
// what arrived after the client had left, and messages that were never
// published.
func (c *roomCheck) buildChains() (chains []*chain) {
	open := make(map[string]*chain) // by client
	for _, s := range c.Stays {
		ch := open[s.Client]
		if ch == nil || !s.Resumed || s.Since.IsZero() || ch.last() != s.Since {
			ch = &chain{client: s.Client, first: s, since: s.Since, early: c.isEarly(s)}
			open[s.Client] = ch
			chains = append(chains, ch)
		}
		ch.ended = s.Complete
		ch.stays = append(ch.stays, len(ch.events))
		for _, e := range s.Events {
			if c.belongs(s, &e) {
				ch.events = append(ch.events, e)
			}
		}
	}
	return chains
}

// last returns the position of the last message.
func (ch *chain) last() fanout.Position {
	for i := len(ch.events) - 1; i >= 0; i-- {
		if !ch.events[i].Gap {
			return ch.events[i].Position
		}
	}
	return ch.since
}

// isEarly reports whether the client joined before anything was published.
func (c *roomCheck) isEarly(s *Stay) bool {
	if s.Resumed {
		return false
	}
	for _, numbers := range c.Published {
		if len(numbers) > 0 && numbers[0].Begin <= s.Joined {
			return false
		}
	}
	return true
}

// belongs reports whether the client may have received the event at all.
func (c *roomCheck) belongs(s *Stay, e *Event) bool {
	if s.Left > 0 && e.Asked > s.Left {
		c.fail(Left, s.Client, e.At, "left at %v, then got %s", s.Left, e)
		return false
	}
	if e.Gap {
		return true
	}
	p := c.publication(e.Message)
	switch {
	case p == nil:
		c.fail(Outcomes, s.Client, e.At, "got %s, which nobody published", e)
	case p.Outcome == Unsent:
		c.fail(Outcomes, s.Client, e.At, "got %s, although its Publish returned ErrUnsent", e)
	default:
		return true
	}
	return false
}

// once drops repeated messages, and fills in chain.at.
func (c *roomCheck) once(ch *chain) {
	ch.at = make([]int, c.size)
	for i := range ch.at {
		ch.at[i] = -1
	}
	kept := ch.events[:0:0]
	stays := make([]int, len(ch.stays))
	for i, stay := 0, 0; i <= len(ch.events); i++ {
		for stay < len(ch.stays) && ch.stays[stay] == i {
			stays[stay] = len(kept)
			stay++
		}
		if i == len(ch.events) {
			break
		}
		e := ch.events[i]
		if !e.Gap {
			n := c.of(e.Message)
			if before := ch.at[n]; before >= 0 {
				c.again(ch, kept, stays[:stay], before, &e)
				continue
			}
			ch.at[n] = len(kept)
		}
		kept = append(kept, e)
	}
	ch.events, ch.stays = kept, stays
}

// again judges a repeated message. It is allowed only if the client has resumed
// meanwhile, and got a gap of unknown size.
func (c *roomCheck) again(ch *chain, events []Event, stays []int, before int, e *Event) {
	begin := stays[len(stays)-1]
	if before < begin {
		for _, g := range events[begin:] {
			if g.Gap && g.Unknown {
				return
			}
		}
	}
	c.fail(Once, ch.client, e.At, "got %s again, after %v", e, e.At-events[before].At)
}
