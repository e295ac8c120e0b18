package presence

import (
	"cmp"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
)

const (
	// MaxMembers is the most members that a hub may list. It and maxPeers bound
	// what is remembered of forged hubs and members. Members that are only counted
	// take no memory; maxCount bounds their number for each hub.
	MaxMembers = 65536
	maxPeers   = 4096
	maxCount   = 1 << 32
	// maxWaiting is the number of announcements that wait for a snapshot.
	maxWaiting = 64
	// A hub that does not answer is asked again after firstAsk, then after
	// twice that, up to maxAsk.
	firstAsk = time.Second
	maxAsk   = 10 * time.Second
)

// A State is what a Follower knows of a hub.
type State uint8

const (
	// Unknown means that nothing was heard of the hub, or that it is gone.
	Unknown State = iota
	// Following means that the hub's list is exact.
	Following
	// Stale means that something was missed: the old list is kept, and a snapshot
	// was asked for. Announcements wait for it.
	Stale
	// Leaving means that the hub has ended in order. Its list is kept until the
	// grace period is over.
	Leaving
)

// A Follower knows who is in a room on all hubs.
type Follower struct {
	peers   map[uint64]*peer
	people  map[personKey]*person
	count   int    // of connections
	number  uint64 // of the last change
	doubts  uint64 // how often Doubt was called
	settled bool   // the first lists are here: changes are made
	large   bool   // some hub announces a summary

	// What the current event has changed.
	touched map[personKey]before
	counted bool // count may have changed
	ask     []Ask
}

// A peer is what is known of one hub.
type peer struct {
	state   State
	life    uint64
	seq     uint64
	mode    control.Mode
	count   int
	digest  uint64 // of members
	members map[uint64]*control.Entry
	sample  []control.Entry
	waiting []*control.Announcement
	until   time.Time     // Stale: when it is asked again; Leaving: when it is removed
	delay   time.Duration // before it is asked once more
}

// A person has connections; the first is the one that is there longest.
type person struct{ connections []connection }

type connection struct {
	hub    uint64
	member *control.Entry
}

// before is what a person was before an event; nil if it was not there.
type before struct{ info *control.Entry }

// A Step is what follows from an event.
type Step struct {
	Change *Change // nil: nobody came or went
	Ask    []Ask   // hubs to ask for a snapshot
}

// An Ask is a question for the snapshot of a hub, with what is known of it.
type Ask struct {
	Hub               uint64
	Life, Seq, Digest uint64
	Doubts            uint64 // see Follower.Snapshot
}

// NewFollower returns a Follower that knows of nobody.
func NewFollower() *Follower {
	return &Follower{peers: make(map[uint64]*peer), people: make(map[personKey]*person), touched: make(map[personKey]before)}
}

// State returns what is known of a hub.
func (f *Follower) State(hub uint64) State {
	if p := f.peers[hub]; p != nil {
		return p.state
	}
	return Unknown
}

// Hubs returns the number of hubs that have connections in the room.
func (f *Follower) Hubs() (n int) {
	for _, p := range f.peers {
		if p.count > 0 {
			n++
		}
	}
	return n
}

// Total returns the number of connections in the room on all hubs.
func (f *Follower) Total() int { return f.count }

// Number returns the number of the last change.
func (f *Follower) Number() uint64 { return f.number }

// Receive takes an announcement, in the order of the room's channel.
func (f *Follower) Receive(hub uint64, a *control.Announcement, now time.Time) Step {
	p := f.peers[hub]
	switch {
	case tooMany(a.Count, a.Mode) || p == nil && len(f.peers) >= maxPeers:
		return Step{}
	case p == nil:
		p = f.add(hub)
	case a.Life < p.life || p.state == Leaving && a.Life == p.life:
		return Step{}
	}
	if a.Life > p.life && a.Seq == 1 && !a.Again { // the hub begins anew
		f.replace(hub, p, nil)
		p.life, p.seq, p.state, p.waiting = a.Life, 0, Following, nil
	}
	if p.state == Stale && a.Life >= p.life {
		p.wait(a)
	} else if !f.apply(hub, p, a) {
		f.doubt(hub, p, now)
		p.wait(a)
	}
	return f.step()
}

// tooMany reports whether no hub announces so many members.
func tooMany(count uint64, m control.Mode) bool {
	return count > maxCount || m != control.ModeSummary && count > MaxMembers
}

func (f *Follower) add(hub uint64) *peer {
	p := &peer{members: make(map[uint64]*control.Entry), mode: control.ModeList}
	f.peers[hub] = p
	return p
}

// wait keeps an announcement until there is a snapshot. An announcement that
// repeats the numbers waits, too, because it shows whether the snapshot is
// older. If there are too many, the oldest are dropped: a snapshot that is
// asked for later includes them.
func (p *peer) wait(a *control.Announcement) {
	if n := len(p.waiting); a.Again && n > 0 && p.waiting[n-1].Life == a.Life && p.waiting[n-1].Seq >= a.Seq {
		return
	}
	if len(p.waiting) == maxWaiting {
		p.waiting = slices.Delete(p.waiting, 0, 1)
	}
	kept := *a
	kept.Joined = make([]control.Entry, len(a.Joined))
	for i := range a.Joined {
		kept.Joined[i] = *clone(&a.Joined[i])
	}
	kept.Left = slices.Clone(a.Left)
	p.waiting = append(p.waiting, &kept)
}

// clone copies an entry, so that it does not keep the payload alive.
func clone(e *control.Entry) *control.Entry {
	c := *e
	c.Name, c.Data = slices.Clone(e.Name), slices.Clone(e.Data)
	return &c
}

// apply applies an announcement. It reports false if the list of the hub is not
// right, before it or after it.
func (f *Follower) apply(hub uint64, p *peer, a *control.Announcement) bool {
	switch {
	case a.Life != p.life:
		return false
	case a.Again || a.Seq <= p.seq:
		return a.Seq < p.seq || a.Seq == p.seq && f.matches(p, a)
	case a.Seq != p.seq+1:
		return false
	case a.Mode != p.mode && a.Mode != control.ModeSummary:
		return false // the hub lists its members again: ask for the list
	}
	p.seq = a.Seq
	if a.Mode == control.ModeSummary {
		f.summarize(hub, p, a.Count, a.Joined)
		return true
	}
	for i := range a.Joined {
		f.join(hub, p, &a.Joined[i])
	}
	for _, number := range a.Left {
		f.leave(hub, p, number)
	}
	return f.matches(p, a)
}

// matches reports whether count and digest of a hub are right.
func (f *Follower) matches(p *peer, a *control.Announcement) bool {
	return a.Mode == p.mode && int(a.Count) == p.count && (a.Mode == control.ModeSummary || p.digest == a.Digest)
}

// doubt asks for a snapshot.
func (f *Follower) doubt(hub uint64, p *peer, now time.Time) {
	p.state, p.delay = Stale, firstAsk
	f.question(hub, p, now)
}

func (f *Follower) question(hub uint64, p *peer, now time.Time) {
	p.until = now.Add(p.delay)
	p.delay = min(2*p.delay, maxAsk)
	f.ask = append(f.ask, Ask{hub, p.life, p.seq, p.digest, f.doubts})
}

// Doubt says that announcements may be missing: the subscription was
// interrupted.
func (f *Follower) Doubt(now time.Time) Step {
	f.doubts++
	for hub, p := range f.peers {
		if p.state != Leaving {
			f.doubt(hub, p, now)
		}
	}
	slices.SortFunc(f.ask, func(a, b Ask) int { return cmp.Compare(a.Hub, b.Hub) })
	return f.step()
}

// Doubts returns how often Doubt was called.
func (f *Follower) Doubts() uint64 { return f.doubts }

// Snapshot takes a hub's answer to a question that was asked when Doubt had
// been called doubts times: an answer to an earlier one may be out of date.
func (f *Follower) Snapshot(hub uint64, a *control.Answer, doubts uint64, now time.Time) Step {
	p := f.peers[hub]
	switch {
	case doubts != f.doubts || tooMany(a.Count, a.Mode) || p == nil && len(f.peers) >= maxPeers:
		return Step{}
	case p == nil:
		p = f.add(hub)
		p.state, p.delay, p.until = Stale, firstAsk, now.Add(firstAsk)
	case p.state != Stale || a.Life < p.life || a.Life == p.life && a.Seq < p.seq:
		return Step{} // it answers an earlier question
	}
	switch {
	case a.Status == control.StatusSame:
		if a.Life != p.life || a.Seq != p.seq {
			return Step{}
		}
	case a.Mode == control.ModeSummary:
		p.life, p.seq = a.Life, a.Seq
		f.summarize(hub, p, a.Count, a.Entries)
	default:
		p.life, p.seq = a.Life, a.Seq
		f.replace(hub, p, a.Entries)
		if p.count != int(a.Count) || p.digest != a.Digest {
			return f.step() // it will be asked again
		}
	}
	p.state = Following
	waiting := p.waiting
	p.waiting = nil
	for i, w := range waiting {
		if w.Life < p.life || w.Life == p.life && w.Seq <= p.seq {
			continue
		}
		if !f.apply(hub, p, w) {
			f.doubt(hub, p, now)
			p.waiting = waiting[i:]
			break
		}
	}
	return f.step()
}

// Came says that a hub is there again whose announcements were ignored
// meanwhile. It is asked until it answers.
func (f *Follower) Came(hub uint64, now time.Time) Step {
	p := f.peers[hub]
	switch {
	case p == nil && len(f.peers) >= maxPeers:
		return Step{}
	case p == nil:
		p = f.add(hub)
	}
	f.doubt(hub, p, now)
	return f.step()
}

// Gone says that a hub has died: its members go in one step.
func (f *Follower) Gone(hub uint64) Step {
	f.remove(hub)
	return f.step()
}

// Left says that a hub has ended in order: its members go in one step when the
// grace period is over.
func (f *Follower) Left(hub uint64, now time.Time, grace time.Duration) Step {
	if p := f.peers[hub]; p != nil {
		p.state, p.waiting, p.until = Leaving, nil, now.Add(max(grace, 0))
	}
	return f.Tick(now)
}

func (f *Follower) remove(hub uint64) {
	if p := f.peers[hub]; p != nil {
		f.replace(hub, p, nil)
		delete(f.peers, hub)
	}
}

// Next returns when Tick is due; zero if nothing is.
func (f *Follower) Next() (at time.Time) {
	for _, p := range f.peers {
		if p.state != Following && (at.IsZero() || p.until.Before(at)) {
			at = p.until
		}
	}
	return at
}

// Tick asks again and removes hubs whose grace period is over.
func (f *Follower) Tick(now time.Time) Step {
	for hub, p := range f.peers {
		switch {
		case now.Before(p.until):
		case p.state == Leaving:
			f.remove(hub)
		case p.state == Stale:
			f.question(hub, p, now)
		}
	}
	slices.SortFunc(f.ask, func(a, b Ask) int { return cmp.Compare(a.Hub, b.Hub) })
	return f.step()
}

// Settle says that the hubs that were there at the beginning have answered.
// From now on changes are made; the first is the whole list.
func (f *Follower) Settle() Step {
	if f.settled {
		return Step{}
	}
	f.settled = true
	f.large = f.summarized()
	f.number++
	f.touched, f.counted = make(map[personKey]before), false
	return Step{Change: f.List()}
}
