package check

import "time"

// Figures of the time from the beginning of a fault to that of the next one.
type Figures struct {
	Fault     string
	Published int // accepted
	Refused   int // with an error of any kind
	Received  int // by all clients together

	Missed  int // reported missing, in rooms without history
	Unknown int // gaps of unknown size, in rooms without history
	Lost    int // reported missing, in rooms with history, including trimmed messages
	Trimmed int // of these, the trimmed ones
	Alarms  int // gaps of unknown size in rooms with history, with nothing missing
	Order   int // messages that arrived in different orders, where that is documented
	Silent  int // missing without a gap
	Lists   int // of people, that were compared

	Outage   time.Duration // the longest time that a client received nothing in a room
	Service  time.Duration // until all clients received from all publishers again
	Failures int
}

// Add adds figures of the same fault.
func (f *Figures) Add(g Figures) {
	f.Published += g.Published
	f.Refused += g.Refused
	f.Received += g.Received
	f.Missed += g.Missed
	f.Unknown += g.Unknown
	f.Lost += g.Lost
	f.Trimmed += g.Trimmed
	f.Alarms += g.Alarms
	f.Order += g.Order
	f.Silent += g.Silent
	f.Lists += g.Lists
	f.Outage = max(f.Outage, g.Outage)
	f.Service = max(f.Service, g.Service)
	f.Failures += g.Failures
}

func (c *roomCheck) countPublished() {
	for _, numbers := range c.Published {
		for i := range numbers {
			f := c.figures(numbers[i].Begin)
			if numbers[i].Outcome == Accepted {
				f.Published++
			} else {
				f.Refused++
			}
		}
	}
}

func (c *roomCheck) countStay(s *Stay) {
	last := s.Joined
	for i := range s.Events {
		e := &s.Events[i]
		f := c.figures(e.At)
		switch {
		case !e.Gap:
			f.Received++
			f.Outage = max(f.Outage, e.At-last)
			last = max(last, e.At)
		case c.Keeps > 0:
			f.Lost += e.Missed
		default:
			f.Missed += e.Missed
			if e.Unknown {
				f.Unknown++
			}
		}
	}
}
