package presence

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/fanoutgo/fanout/internal/control"
)

// A Change is who came and went.
type Change struct {
	Number  uint64 // of the change; of a list: of the last change in it
	Reset   bool   // Joined is the whole list; forget what was before
	Joined  []Person
	Updated []Person // their info
	Left    []Person
	// Large means that the room is too large for a list: Count, and Joined as a
	// sample, are all there is.
	Large bool
	Count int // of connections in the room
}

// A Person is a user, or a member that has none.
type Person struct {
	User   string
	Hub    uint64 // of a member that has no user
	Member uint64 // likewise: its number
	Since  uint64 // of the connection that is there longest: ms since 1970
	Info   []byte
}

// join adds a member of a hub to the list, or replaces its info.
func (f *Follower) join(hub uint64, p *peer, e *control.Entry) {
	if old := p.members[e.Number]; old != nil {
		f.leave(hub, p, e.Number)
	}
	e = clone(e)
	p.members[e.Number] = e
	p.digest ^= sum(e)
	f.recount(p, 1)
	k := key(hub, e)
	f.touch(k)
	who := f.people[k]
	if who == nil {
		who = new(person)
		f.people[k] = who
	}
	c := connection{hub, e}
	at, _ := slices.BinarySearchFunc(who.connections, c, connection.compare)
	who.connections = slices.Insert(who.connections, at, c)
}

// leave removes a member of a hub from the list.
func (f *Follower) leave(hub uint64, p *peer, number uint64) {
	e := p.members[number]
	if e == nil {
		return
	}
	delete(p.members, number)
	p.digest ^= sum(e)
	f.recount(p, -1)
	k := key(hub, e)
	f.touch(k)
	who := f.people[k]
	who.connections = slices.DeleteFunc(who.connections, func(c connection) bool { return c.member == e })
	if len(who.connections) == 0 {
		delete(f.people, k)
	}
}

// recount changes the number of connections.
func (f *Follower) recount(p *peer, by int) {
	p.count += by
	f.count += by
	f.counted = true
}

// compare orders connections: the one that is there longest first.
func (c connection) compare(other connection) int {
	return cmp.Or(
		cmp.Compare(c.member.Since, other.member.Since),
		cmp.Compare(c.hub, other.hub),
		cmp.Compare(c.member.Number, other.member.Number),
	)
}

// replace makes entries the members of a hub, which are listed.
func (f *Follower) replace(hub uint64, p *peer, entries []control.Entry) {
	if p.mode == control.ModeSummary {
		f.recount(p, -p.count)
		p.mode, p.sample = control.ModeList, nil
	}
	stays := make(map[uint64]bool, len(entries))
	for i := range entries {
		e := &entries[i]
		stays[e.Number] = true
		if old := p.members[e.Number]; old == nil || sum(old) != sum(e) {
			f.join(hub, p, e)
		}
	}
	for number := range p.members {
		if !stays[number] {
			f.leave(hub, p, number)
		}
	}
}

// summarize counts the members of a hub without listing them.
func (f *Follower) summarize(hub uint64, p *peer, count uint64, sample []control.Entry) {
	f.replace(hub, p, nil)
	p.mode, p.sample = control.ModeSummary, nil
	f.recount(p, int(count)-p.count)
	for i := range sample[:min(len(sample), maxSample)] {
		p.sample = append(p.sample, *clone(&sample[i]))
	}
}

// touch notes what a person was before the event.
func (f *Follower) touch(k personKey) {
	if _, known := f.touched[k]; known || !f.settled {
		return
	}
	var was before
	if who := f.people[k]; who != nil {
		was.info = who.connections[0].member
	}
	f.touched[k] = was
}

// step returns what the current event has changed.
func (f *Follower) step() (s Step) {
	s.Ask, f.ask = f.ask, nil
	touched, counted := f.touched, f.counted
	if len(touched) > 0 {
		f.touched = make(map[personKey]before)
	}
	f.counted = false
	if !f.settled {
		return s
	}
	was := f.large
	f.large = f.summarized()
	switch {
	case f.large && !counted && was:
		return s
	case f.large, was:
		f.number++
		s.Change = f.List()
		return s
	}
	c := &Change{Number: f.number + 1, Count: f.count}
	for k, was := range touched {
		who := f.people[k]
		switch {
		case who == nil && was.info != nil:
			c.Left = append(c.Left, personOf(k, was.info))
			c.Left[len(c.Left)-1].Info = nil
		case who == nil:
		case was.info == nil:
			c.Joined = append(c.Joined, personOf(k, who.connections[0].member))
		case !bytes.Equal(was.info.Data, who.connections[0].member.Data):
			c.Updated = append(c.Updated, personOf(k, who.connections[0].member))
		}
	}
	if len(c.Joined)+len(c.Updated)+len(c.Left) > 0 {
		for _, list := range [...][]Person{c.Joined, c.Updated, c.Left} {
			slices.SortFunc(list, Person.compare)
		}
		f.number++
		s.Change = c
	}
	return s
}

// summarized reports whether some hub announces a summary.
func (f *Follower) summarized() bool {
	for _, p := range f.peers {
		if p.mode == control.ModeSummary {
			return true
		}
	}
	return false
}

// List returns the list of who is there, as a Change with Reset set.
func (f *Follower) List() *Change {
	c := &Change{Number: f.number, Reset: true, Large: f.large, Count: f.count}
	for k, who := range f.people {
		if f.large && len(c.Joined) == maxSample {
			break
		}
		c.Joined = append(c.Joined, personOf(k, who.connections[0].member))
	}
	for hub, p := range f.peers {
		for i := range p.sample {
			who := personOf(key(hub, &p.sample[i]), &p.sample[i])
			again := slices.ContainsFunc(c.Joined, func(other Person) bool { return who.compare(other) == 0 })
			if !again && len(c.Joined) < maxSample {
				c.Joined = append(c.Joined, who)
			}
		}
	}
	slices.SortFunc(c.Joined, Person.compare)
	return c
}

func personOf(k personKey, e *control.Entry) Person {
	return Person{User: k.user, Hub: k.hub, Member: k.number, Since: e.Since, Info: e.Data}
}

func (p Person) compare(other Person) int {
	return personKey{p.User, p.Hub, p.Member}.compare(personKey{other.User, other.Hub, other.Member})
}
