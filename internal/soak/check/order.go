package check

import "time"

// order checks that any two clients received the messages that both have in the
// same order, and every client those of a publisher in the publisher's order.
//
// In a room with history the order is that of positions, which have been
// checked. An exception is a message that the servers lost after some clients
// had received it, and got again from its publisher: it has two positions, and
// is only counted. Nor has a backend without an order among publishers one in
// rooms without history.
func (c *roomCheck) order() {
	differs := make(map[ID]Time) // messages that one client received before, another one after the same message
	for i, a := range c.chains {
		c.publishersOrder(a, differs)
		for _, b := range c.chains[i+1:] {
			c.compare(a, b, differs)
		}
	}
	for _, at := range differs {
		c.figures(at).Order++
	}
}

// settling is how long after a fault hubs may still be subscribed at a node
// that has become a replica: a link asks its node at every third probe.
const settling = Time(3 * time.Second)

func (c *roomCheck) compare(a, b *chain, differs map[ID]Time) {
	if len(a.events) > len(b.events) {
		a, b = b, a
	}
	last, before := -1, -1 // in b, in a
	for i := range a.events {
		e := &a.events[i]
		if e.Gap {
			continue
		}
		at := b.at[c.of(e.Message)]
		if at < 0 {
			continue
		}
		if at < last {
			c.differ(a, e, &a.events[before], b, &b.events[at], differs)
		}
		last, before = at, i
	}
}

// differ judges a message that a received after another one, and b before it.
func (c *roomCheck) differ(a *chain, e, prev *Event, b *chain, other *Event, differs map[ID]Time) {
	if c.Keeps > 0 || c.run.Unordered || c.during(min(e.At, other.At)-settling, max(e.At, other.At), twoOrders) {
		differs[e.Message] = e.At
		return
	}
	c.fail(Order, a.client, e.At, "got %s after %s, %s got it before", e, prev, b.client)
}

func (c *roomCheck) publishersOrder(ch *chain, differs map[ID]Time) {
	last := make([]*Event, len(c.Published))
	for i := range ch.events {
		e := &ch.events[i]
		if e.Gap {
			continue
		}
		p := e.Message.Publisher
		if prev := last[p]; prev != nil && e.Message.Number < prev.Message.Number {
			if c.during(c.publication(e.Message).Begin-settling, e.At, twoOrders) {
				differs[e.Message] = e.At
			} else {
				c.fail(Order, ch.client, e.At, "got %s after %s of the same publisher", e, prev)
			}
		}
		last[p] = e
	}
}
