package check

// read checks the result of History: it must have all messages after the
// position that were accepted before the call.
func (c *roomCheck) read(r *Read) {
	last := r.Since
	got := make(map[ID]bool, len(r.Messages))
	for i := range r.Messages {
		e := &r.Messages[i]
		p := c.publication(e.Message)
		if p == nil || p.Outcome == Unsent {
			c.fail(Outcomes, r.Client, r.End, "History returned %s, which nobody published", e)
			continue
		}
		if got[e.Message] {
			c.fail(Once, r.Client, r.End, "History returned %s twice", e)
		}
		got[e.Message] = true
		if other, known := c.places[e.Position]; known && other != e.Message {
			c.fail(Positions, r.Client, r.End, "History returned %s, where others got %v", e, other)
		}
		if !last.Before(e.Position) {
			c.fail(Positions, r.Client, r.End, "History returned %s after %v", e, last)
			return
		}
		last = e.Position
	}
	c.readHoles(r)
	for at, m := range c.places {
		p := c.publication(m)
		trims := c.Keeps < c.size && (r.Missed > 0 || r.Unknown || r.Since.IsZero()) && (len(r.Messages) == 0 || at.Before(r.Messages[0].Position))
		if got[m] || p.Outcome != Accepted || p.End >= r.Begin || !r.Since.Before(at) || trims || c.during(p.Begin, r.End, lossy) {
			continue
		}
		c.fail(Kept, r.Client, r.End, "History after %v lacks %v at %v, accepted at %v", r.Since, m, at, p.End).Silent++
	}
}

// readHoles compares the offsets with what was reported. Positions grow.
func (c *roomCheck) readHoles(r *Read) {
	last, missed := r.Since, r.Missed
	for i := range r.Messages {
		e := &r.Messages[i]
		hole := int(e.Position.Offset) - int(last.Offset) - 1
		if !last.IsZero() && last.Epoch == e.Position.Epoch && hole != missed {
			c.fail(Silence, r.Client, r.End, "History returned %s after %v, and %d was reported missing", e, last, missed)
		}
		last, missed = e.Position, 0
	}
}
