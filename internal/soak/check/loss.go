package check

import (
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout"
)

// A lossCheck looks for messages that a chain lacks.
type lossCheck struct {
	*roomCheck
	*chain
	gaps   []int       // indices of gaps
	costly map[int]int // by gap: how many missing messages it may refer to
	// By gap: how many of those have no other explanation, and one of them.
	puzzling map[int]int
	meant    map[int]ID

	told    uint64   // the epoch that began with a gap of unknown size
	silent  int      // messages that are missing without a gap
	lacks   [][2]int // between which events messages are missing, with a gap or not
	between int      // missing between messages of their publisher, in rooms without history
}

// losses checks that all missing messages were reported, at their place and
// with their number, and that in a room with history none is missing without a
// reason.
func (c *roomCheck) losses(ch *chain) {
	l := &lossCheck{roomCheck: c, chain: ch, costly: make(map[int]int), puzzling: make(map[int]int), meant: make(map[int]ID)}
	for i := range ch.events {
		if ch.events[i].Gap {
			l.gaps = append(l.gaps, i)
		}
	}
	from := c.from(ch)
	for p := range c.Published {
		l.publisher(p, from)
	}
	if c.Keeps > 0 {
		l.eachPlace(l.judge)
	}
	if c.Keeps > 0 && !ch.wrong {
		l.eachPlace(l.hole)
	}
	l.sums()
}

// from returns a time: messages that were published after it belong to the
// chain.
func (c *roomCheck) from(ch *chain) Time {
	s := ch.first
	if !s.Resumed || !s.Since.IsZero() || c.Keeps < c.size {
		return s.Joined
	}
	// Everything that is kept: all messages since the servers lost anything.
	for i := c.faultAt(s.Joined); i >= 0; i-- {
		if c.run.Faults[i].Lossy {
			if i == c.faultAt(s.Joined) {
				return s.Joined
			}
			return c.run.Faults[i+1].From
		}
	}
	return -1
}

// publisher finds the missing messages of a publisher. Its messages arrive in
// the order of their numbers, so each one's place is between the ones before
// and after.
func (l *lossCheck) publisher(p int, from Time) {
	var missing []ID
	after := -1 // index of the last one that arrived
	flush := func(before int) {
		if len(missing) > 0 {
			l.missing(missing, after, before)
		}
		missing = missing[:0]
	}
	for n := range l.Published[p] {
		m := ID{uint16(p), uint32(n)}
		pub := l.publication(m)
		if at := l.at[l.of(m)]; at >= 0 {
			flush(at)
			after = at
		} else if pub.Outcome == Accepted && pub.Begin > from {
			missing = append(missing, m)
		}
	}
	if l.ended { // otherwise the client may have left before
		flush(len(l.events))
	}
}

// missing judges messages whose place is between two events.
func (l *lossCheck) missing(list []ID, after, before int) {
	l.lacks = append(l.lacks, [2]int{after, before})
	var told []int
	numbered := false
	for _, g := range l.gaps {
		if g > min(after, before) && g < max(after, before) {
			told = append(told, g)
			numbered = numbered || l.events[g].Missed > 0
		}
	}
	for _, g := range told {
		l.costly[g] += len(list)
	}
	if len(told) > 0 {
		// A gap without a number does not count if another one has a number.
		l.puzzle(slices.DeleteFunc(told, func(g int) bool { return numbered && l.events[g].Missed == 0 }), list)
		if after >= 0 && before < len(l.events) {
			l.between += len(list)
		}
		return
	}
	rule := Silence
	switch {
	case after >= 0:
	case !l.first.Resumed:
		rule = Joined
	case l.first.Since.IsZero():
		rule = Kept
	}
	l.silent += len(list)
	m := list[0]
	at := l.publication(m).End
	l.fail(rule, l.client, at, "%v is missing, and %d more, accepted from %v on: %s", m, len(list)-1, at, l.around(after, before)).Silent += len(list)
}

// puzzle counts, for the first of the gaps that may refer to them, those of the
// missing messages that have no other explanation: they were not published so
// long before the gap that the history may have dropped them, nor when servers
// lost something.
func (l *lossCheck) puzzle(gaps []int, list []ID) {
	for _, m := range list {
		pub := l.publication(m)
		i := slices.IndexFunc(gaps, func(g int) bool { return l.means(g, pub) })
		if i < 0 || l.during(pub.Begin, pub.End+time.Second, lossy) || l.outlived(pub.End, l.events[gaps[i]].At) {
			continue
		}
		l.puzzling[gaps[i]]++
		l.meant[gaps[i]] = m
	}
}

// means reports whether a gap may refer to a message: it was published before
// the gap arrived, and not after what was received next.
func (l *lossCheck) means(gap int, pub *Publication) bool {
	if pub.Begin >= l.events[gap].At {
		return false
	}
	for i := gap; i < len(l.events); i++ {
		if !l.events[i].Gap {
			next := l.publication(l.events[i].Message)
			return next == nil || next.Outcome != Accepted || pub.Begin <= next.End
		}
	}
	return true
}

// outlived reports whether as many messages as the history keeps were published
// between two times.
func (l *lossCheck) outlived(from, to Time) bool {
	if l.Keeps >= l.size {
		return false
	}
	n := 0
	for _, list := range l.Published {
		for i := range list {
			if list[i].Outcome != Unsent && list[i].Begin >= from && list[i].Begin < to {
				n++
			}
		}
	}
	return n >= l.Keeps
}

func (l *lossCheck) around(after, before int) string {
	text := "after " + l.begin()
	if after >= 0 {
		text = fmt.Sprintf("after %s, received at %v", &l.events[after], l.events[after].At)
	}
	if before < len(l.events) {
		text += fmt.Sprintf(", before %s, received at %v", &l.events[before], l.events[before].At)
	}
	return text
}

func (l *lossCheck) begin() string {
	if l.first.Resumed {
		return "a Resume after " + l.since.String() + " at " + l.first.Joined.String()
	}
	return "a Join at " + l.first.Joined.String()
}

// A gapPlace is the place between two messages that were received in
// succession.
type gapPlace struct {
	prev, next *Event // nil: there is none
	at         int    // index of next
	gaps       []Event
	sum        int
	unknown    bool
	costly     int  // missing messages that the gaps may refer to
	puzzling   int  // those of them without another explanation
	meant      ID   // one of these
	from, to   Time // it was lost between these times
}

// eachPlace calls f for all places, with or without gaps.
func (l *lossCheck) eachPlace(f func(*gapPlace)) {
	p := &gapPlace{from: l.first.Joining}
	if l.first.Resumed && !l.first.Since.IsZero() {
		p.from = 0 // missing messages may be as old as the last stay
		if m, known := l.places[l.first.Since]; known {
			p.from = min(l.first.Joining, l.publication(m).Begin)
		}
	}
	for i := range l.events {
		e := &l.events[i]
		p.to = e.At
		if e.Gap {
			p.gaps = append(p.gaps, *e)
			p.sum += e.Missed
			p.unknown = p.unknown || e.Unknown
			p.costly = max(p.costly, l.costly[i])
			if l.puzzling[i] > p.puzzling {
				p.puzzling, p.meant = l.puzzling[i], l.meant[i]
			}
			continue
		}
		p.next, p.at = e, i
		f(p)
		// Messages that are missing here may be as old as the message before.
		p = &gapPlace{prev: e, from: e.At}
		if pub := l.publication(e.Message); pub != nil {
			p.from = min(p.from, pub.Begin)
		}
	}
	if len(p.gaps) > 0 {
		f(p)
	}
}

// newcomer is how long a server treats a history that has moved to it as one
// that may have come from its disk or by replication: SKEW of history.lua, and
// a second because servers report their uptime in seconds.
const newcomer = Time(2 * time.Second)

// judge looks for the reason of gaps in a room with history.
func (l *lossCheck) judge(p *gapPlace) {
	if len(p.gaps) == 0 {
		return
	}
	// If servers cannot be sure whether something was lost before, the number
	// of trimmed messages does not show that.
	trimmed := p.sum > 0 && (!p.unknown || l.during(p.from, p.to, doubtful)) && l.trimmed(p)
	switch {
	case trimmed:
		l.figures(p.to).Trimmed += p.sum
	case l.during(p.from, p.to, lossy), p.puzzling == 0 && l.inDoubt(p):
		if p.costly == 0 && p.sum == 0 {
			l.figures(p.to).Alarms++
		}
	default:
		what := "nothing is"
		if p.puzzling > 0 {
			what = fmt.Sprintf("%d are, such as %v, accepted at %v", p.puzzling, p.meant, l.publication(p.meant).End)
		}
		l.fail(Kept, l.client, p.to, "got %s, although nothing can have been lost; %d gaps of %d in all at that place, between %v and %v, after %v and before %v; of what is missing %s",
			&p.gaps[0], len(p.gaps), p.sum, p.from, p.to, p.prev, p.next, what)
	}
}

// inDoubt reports whether servers cannot be sure whether something was lost.
func (l *lossCheck) inDoubt(p *gapPlace) bool {
	return l.during(p.from, p.to, doubtful) ||
		p.sum == 0 && l.during(p.from, p.to, moves) && l.during(p.from-newcomer, p.to, doubtful)
}

// trimmed reports whether all missing messages may have been trimmed: as many
// messages as the history keeps were published after them by then.
func (l *lossCheck) trimmed(p *gapPlace) bool {
	if p.next == nil {
		return false
	}
	// Epochs may have changed meanwhile; offsets continue.
	at := p.next.Position
	for other, m := range l.places {
		if other.Epoch >= at.Epoch && other.Offset >= at.Offset+uint64(l.Keeps)-1 && l.publication(m).Begin < p.to {
			return true
		}
	}
	return false
}

// hole compares the offsets with what was reported.
func (l *lossCheck) hole(p *gapPlace) {
	before := l.since
	if p.prev != nil {
		before = p.prev.Position
	}
	if before.IsZero() || p.next == nil || !before.Before(p.next.Position) {
		return
	}
	now := p.next.Position
	if p.unknown && before.Epoch != now.Epoch {
		l.told = now.Epoch
	}
	hole := int(now.Offset) - int(before.Offset) - 1
	if hole > 0 {
		hole -= l.hadBetween(before, now)
	}
	wrong := false
	switch {
	case len(p.gaps) == 0:
		wrong = hole != 0
	case p.unknown:
	case before.Epoch == now.Epoch && l.told != now.Epoch:
		wrong = p.sum != hole
	case before.Epoch == now.Epoch:
		// What servers lost before the epoch shows only with the next message
		// of its publisher, which may arrive after those of others.
		wrong = p.sum < hole || p.sum > hole+p.costly
	default:
		wrong = p.sum < hole
	}
	if wrong {
		f := l.fail(Silence, l.client, p.to, "%v was followed by %v, and %d was reported missing", before, now, p.sum)
		// A place may also be taken by a message that was stored twice, and that
		// nobody received there: then nothing is missing.
		if l.silent == 0 && slices.ContainsFunc(l.lacks, func(s [2]int) bool { return s[0] < p.at && p.at <= s[1] }) {
			f.Silent += max(hole-p.sum, 0)
		}
	}
}

// hadBetween returns how many messages others received between two positions
// and the client at another place: servers had lost them, and they were stored
// again.
func (l *lossCheck) hadBetween(before, now fanout.Position) (n int) {
	for at := range l.places {
		if before.Before(at) && at.Before(now) && at.Offset > before.Offset && at.Offset < now.Offset && l.at[l.of(l.places[at])] >= 0 {
			n++
		}
	}
	return n
}

// sums compares the numbers of all gaps with the number of missing messages.
func (l *lossCheck) sums() {
	received, missed, unknown := 0, 0, false
	for i := range l.events {
		e := &l.events[i]
		missed += e.Missed
		unknown = unknown || e.Unknown
		if !e.Gap {
			received++
		}
	}
	at := l.first.Joined
	if n := len(l.events); n > 0 {
		at = l.events[n-1].At
	}
	switch {
	case l.early && l.ended && (l.Keeps == 0 || !unknown):
		accepted, unclear := l.published()
		sum := received + missed + l.silent
		if sum < accepted || sum > accepted+unclear {
			l.fail(Silence, l.client, at, "received %d and missed %d, published %d and perhaps %d", received, missed, accepted, unclear).Silent += max(accepted-sum, 0)
		}
	case l.Keeps == 0 && missed < l.between:
		l.fail(Silence, l.client, at, "missed %d, told of %d", l.between, missed).Silent += l.between - missed
	}
}

// published returns how many messages were accepted, and how many may have
// been.
func (c *roomCheck) published() (accepted, unclear int) {
	for _, numbers := range c.Published {
		for i := range numbers {
			switch numbers[i].Outcome {
			case Accepted:
				accepted++
			case Unclear:
				unclear++
			}
		}
	}
	return accepted, unclear
}
