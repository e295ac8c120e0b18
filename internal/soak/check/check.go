package check

import (
	"fmt"
	"slices"
)

// A Rule is a promise that can be broken. Most are the numbered guarantees of
// package fanout.
type Rule string

const (
	Joined    Rule = "1 joined means joined"
	Order     Rule = "2 one order"
	Silence   Rule = "3 no silent loss"
	Kept      Rule = "4 with history, no loss"
	Once      Rule = "5 once"
	Left      Rule = "7 nothing after leave"
	Outcomes  Rule = "8 errors are returned"
	Positions Rule = "positions"
	Presence  Rule = "presence"
)

// A Failure is a rule that was broken.
type Failure struct {
	Rule   Rule
	Room   string
	Client string
	At     Time
	Fault  string // at that time
	Text   string
}

func (f Failure) String() string {
	return fmt.Sprintf("%s: room %s, client %s, at %v (%s): %s", f.Rule, f.Room, f.Client, f.At, f.Fault, f.Text)
}

// A Report is the result of Verify: failures, and figures for each fault of the
// run, in its order.
type Report struct {
	Failures []Failure
	Figures  []Figures
}

// Verify checks a run.
func Verify(run *Run) Report {
	v := &verifier{run: run, report: Report{Figures: make([]Figures, len(run.Faults))}}
	for i, f := range run.Faults {
		v.report.Figures[i].Fault = f.Name
		if f.Served > 0 {
			v.report.Figures[i].Service = f.Served - f.From
		}
	}
	for _, r := range run.Rooms {
		v.room(r)
	}
	return v.report
}

type verifier struct {
	run    *Run
	report Report
}

// room checks a room. Each step passes on only what it has found no fault with,
// so that one fault breaks one rule.
func (v *verifier) room(r *Room) {
	c := &roomCheck{verifier: v, Room: r, index: newIndex(r)}
	c.countPublished()
	for _, s := range r.Stays {
		c.countStay(s)
	}
	c.chains = c.buildChains()
	for _, ch := range c.chains {
		c.once(ch)
	}
	c.positions()
	for _, ch := range c.chains {
		c.losses(ch)
	}
	c.order()
	for _, read := range r.Reads {
		c.read(read)
	}
	c.presence()
}

// A roomCheck is the state of checking one room.
type roomCheck struct {
	*verifier
	*Room
	index
	chains []*chain
	places map[place]ID // of messages, as members saw them
}

// fail adds a failure, and returns the figures of the fault that it falls into.
func (c *roomCheck) fail(rule Rule, client string, at Time, format string, args ...any) *Figures {
	i := c.faultAt(at)
	c.report.Failures = append(c.report.Failures, Failure{
		Rule: rule, Room: c.Name, Client: client, At: at, Fault: c.report.Figures[i].Fault,
		Text: fmt.Sprintf(format, args...),
	})
	c.report.Figures[i].Failures++
	return &c.report.Figures[i]
}

// faultAt returns the index of the fault at a time.
func (v *verifier) faultAt(t Time) int {
	i, found := slices.BinarySearchFunc(v.run.Faults, t, func(f Fault, t Time) int { return int(f.From - t) })
	if found {
		return i
	}
	return max(i-1, 0)
}

func (v *verifier) figures(t Time) *Figures { return &v.report.Figures[v.faultAt(t)] }

// during reports whether a fault of a kind was in the time from a to b.
func (v *verifier) during(a, b Time, kind func(*Fault) bool) bool {
	for i := v.faultAt(a); i <= v.faultAt(b); i++ {
		if kind(&v.run.Faults[i]) {
			return true
		}
	}
	return false
}

func lossy(f *Fault) bool     { return f.Lossy }
func doubtful(f *Fault) bool  { return f.Doubtful || f.Lossy }
func twoOrders(f *Fault) bool { return f.TwoOrders }
func moves(f *Fault) bool     { return f.Moves }

// An index numbers the messages of a room.
type index struct {
	base []int // of each publisher
	size int
}

func newIndex(r *Room) (x index) {
	for _, numbers := range r.Published {
		x.base = append(x.base, x.size)
		x.size += len(numbers)
	}
	return x
}

// of returns the number of a message.
func (x *index) of(m ID) int { return x.base[m.Publisher] + int(m.Number) }

// publication returns the publication of a message; nil if it was not
// published.
func (c *roomCheck) publication(m ID) *Publication {
	if int(m.Publisher) >= len(c.Published) || int(m.Number) >= len(c.Published[m.Publisher]) {
		return nil
	}
	return &c.Published[m.Publisher][m.Number]
}
