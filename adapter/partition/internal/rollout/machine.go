package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// again is how long a round may take before the question is repeated, and
	// pause how long an adapter waits before it asks again because not all are
	// as far as needed.
	again = 500 * time.Millisecond
	pause = 200 * time.Millisecond
	// soon is the pause after one of the others has said something new,
	// or before it knows the others.
	soon = 10 * time.Millisecond
)

// A Machine is one adapter's part in changes. See New.
type Machine struct {
	self   State
	check  bool // a round has to be completed, since something may have been missed
	urgent bool // and it is to begin soon

	// Patience is how long a round lasts where nobody can count, and how long a
	// partition may fail before it is left out. Start is both for an adapter
	// that has just started.
	patience, start time.Duration

	peers   map[string]peer
	round   round
	since   time.Time            // when the first round of the stage began; zero: there was none
	began   time.Time            // the same, of the rounds after the last complete one
	absent  map[string]int       // hubs that are counted and have not answered in time, by partition
	failing map[string]time.Time // partitions that could not be asked, since when
	settled bool                 // the peers are known, though nobody counts
	news    bool                 // a peer has said something new since the round began
}

type peer struct {
	State
	at time.Time
}

// A round is a question to all.
type round struct {
	id    uint64
	began time.Time
	over  bool
	asks  map[string]*ask // by partition
}

// An ask is the question on one partition.
type ask struct {
	counted, failed bool
	receivers       int // -1: not known
	heard           map[string]bool
}

// An Action is what an adapter is to do.
type Action uint8

const (
	None   Action = iota
	Enter         // do the work of the stage, and call Done
	Adopt         // the set of others, which has become current without this adapter
	Follow        // what others want: too many steps have been taken to go back
)

// New returns the machine of an adapter that has just started.
func New(hub string, names []string, patience, start time.Duration) *Machine {
	return &Machine{
		self:     State{Hub: hub, Names: names, Want: names, Stage: Learning},
		patience: patience, start: start,
		peers: make(map[string]peer), failing: make(map[string]time.Time),
		absent: make(map[string]int),
	}
}

// State returns what to tell others.
func (m *Machine) State() State { return m.self }

// Want sets the set that is wanted. It returns false if it is too late for
// another set, which is so from Drained on.
func (m *Machine) Want(names []string) bool {
	if m.self.Stage >= Drained && !slices.Equal(names, m.self.Want) {
		return false
	}
	if !slices.Equal(names, m.self.Want) && m.self.Stage > Steady {
		m.enter(Steady)
	}
	m.self.Want = names
	return true
}

// Done says that the work of a stage is done: what moves is subscribed at both
// homes, nothing is under way to the old ones, or histories have moved.
func (m *Machine) Done(s Stage) {
	if s != m.self.Stage {
		return
	}
	m.self.Done = true
	if s == Opening {
		m.enter(Ready)
		m.self.Done = true
	}
}

// Check asks for a round: this adapter may have missed what others have said.
func (m *Machine) Check() { m.check, m.urgent = true, true }

// Checking reports whether a round that Check asked for is not complete yet.
func (m *Machine) Checking() bool { return m.check }

func (m *Machine) enter(s Stage) {
	m.self.Stage, m.self.Done = s, false
	m.since, m.began, m.round.over, m.news = time.Time{}, time.Time{}, true, true
	if s <= Opening {
		m.settled = false
	}
}

// asks reports whether the stage needs to hear from the others.
func (m *Machine) asks() bool {
	return m.check || m.self.Stage == Learning || m.self.Stage >= Ready && m.self.Done
}

// Due reports whether a round is due. If not, wait is when it may be; 0: never.
func (m *Machine) Due(now time.Time) (due bool, wait time.Duration) {
	if !m.asks() {
		return false, 0
	}
	if m.round.asks == nil || m.since.IsZero() {
		return true, 0
	}
	after := again
	switch {
	case m.round.over && m.news, m.urgent, m.self.Stage == Learning && m.failed():
		after = soon
	case m.round.over, m.failed():
		after = pause
	}
	wait = m.round.began.Add(after).Sub(now)
	return wait <= 0, max(0, wait)
}

// failed reports whether there is a partition on which the question could not
// be asked.
func (m *Machine) failed() bool {
	for _, a := range m.round.asks {
		if a.failed {
			return true
		}
	}
	return false
}

// Begin begins a round on some partitions, and returns its number.
func (m *Machine) Begin(partitions []string, now time.Time) uint64 {
	m.round = round{id: m.round.id + 1, began: now, asks: make(map[string]*ask)}
	for _, p := range partitions {
		m.round.asks[p] = &ask{heard: make(map[string]bool)}
	}
	if m.since.IsZero() {
		m.since = now
	}
	if m.began.IsZero() {
		m.began = now
	}
	m.news, m.urgent = false, false
	return m.round.id
}

// Asked says how many adapters have got the question of a round on a partition,
// this one among them; -1 if nobody can tell.
func (m *Machine) Asked(id uint64, partition string, receivers int) {
	delete(m.failing, partition)
	if a := m.round.asks[partition]; a != nil && id == m.round.id {
		a.counted, a.receivers = true, receivers
	}
}

// AskFailed says that the question could not be asked on a partition.
func (m *Machine) AskFailed(id uint64, partition string, now time.Time) {
	if _, ok := m.failing[partition]; !ok {
		m.failing[partition] = now
	}
	if a := m.round.asks[partition]; a != nil && id == m.round.id {
		a.counted, a.failed = true, true
	}
}

// Answer notes that an adapter has answered a round on a partition.
func (m *Machine) Answer(id uint64, partition string, s State, now time.Time) {
	if a := m.round.asks[partition]; a != nil && id == m.round.id {
		a.heard[s.Hub] = true
	}
	m.Hear(s, now)
}

// Hear notes what an adapter has said, asked for or not.
func (m *Machine) Hear(s State, now time.Time) {
	if s.Hub == m.self.Hub {
		return
	}
	if old, ok := m.peers[s.Hub]; !ok || old.Stage != s.Stage || old.Done != s.Done || old.Epoch != s.Epoch || !slices.Equal(old.Want, s.Want) {
		m.news = true
	}
	m.peers[s.Hub] = peer{s, now}
}

// Leave notes that an adapter has been closed.
func (m *Machine) Leave(hub string) {
	delete(m.peers, hub)
	m.news = true
}

// Decide says what is to be done now. It is called after everything else, until
// it returns None.
func (m *Machine) Decide(now time.Time) Action {
	complete := m.complete(now)
	if complete {
		m.endRound()
	}
	if m.self.Stage == Learning {
		if !complete {
			return None
		}
		m.enter(Steady)
		if m.adopt() {
			return Adopt
		}
		m.self.Epoch, m.self.Era = 1, uint64(max(1, now.UnixMilli()))
		return Enter
	}
	if action := m.others(); action != None {
		return action
	}
	switch from, want := m.self.Epoch, m.self.Want; m.self.Stage {
	case Steady:
		if !slices.Equal(want, m.self.Names) {
			m.enter(Opening)
			return Enter
		}
	case Ready:
		if complete && m.all(from, want, Ready) {
			m.enter(Drained)
			return Enter
		}
	case Drained:
		if m.self.Done && complete && m.all(from, want, Drained) {
			m.enter(Flushed)
			m.self.Done = true
			return Enter
		}
		fallthrough
	case Flushed:
		if m.self.Done && (m.self.Stage == Flushed && complete && m.all(from, want, Flushed) || m.any(from, want)) {
			m.self.Old, m.self.Names, m.self.Epoch = m.self.Names, want, from+1
			m.enter(Switched)
			return Enter
		}
	case Switched:
		if complete && m.self.Done && m.all(from-1, m.self.Names, Switched) {
			m.enter(Steady)
			return Enter
		}
	}
	return None
}

// endRound notes who has not answered, and forgets the peers that have not
// spoken since the round began.
func (m *Machine) endRound() {
	m.round.over, m.check = true, false
	m.settled, m.began = m.self.Stage >= Ready, time.Time{}
	for p, a := range m.round.asks {
		m.absent[p] = a.missing()
	}
	if m.self.Stage <= Steady {
		m.since = time.Time{}
	}
	maps.DeleteFunc(m.peers, func(_ string, p peer) bool { return p.at.Before(m.round.began) })
}

// others returns the action if other adapters are further than this one.
func (m *Machine) others() Action {
	if (m.self.Stage == Drained || m.self.Stage == Flushed) && m.any(m.self.Epoch, m.self.Want) {
		return None // it gets there by its own steps
	}
	content := slices.Equal(m.self.Want, m.self.Names)
	if m.adopt() {
		if content {
			m.self.Want = m.self.Names
		}
		m.enter(Steady)
		return Adopt
	}
	for _, p := range m.sorted() {
		if m.self.Stage < Drained && (p.Stage == Drained || p.Stage == Flushed) && p.Epoch == m.self.Epoch && !slices.Equal(p.Want, m.self.Want) {
			m.self.Want = p.Want
			m.enter(Steady)
			return Follow
		}
	}
	return None
}

// adopt takes over the newest set, if another adapter has a newer one.
func (m *Machine) adopt() bool {
	newest := m.self
	for _, p := range m.peers {
		if p.Epoch > 0 && newest.before(&p.State) {
			newest = p.State
		}
	}
	if newest.Hub == m.self.Hub {
		return false
	}
	m.self.Epoch, m.self.Names, m.self.Old = newest.Epoch, newest.Names, newest.Old
	if newest.Era > 0 {
		m.self.Era = newest.Era
	}
	return true
}

// all reports whether all peers are as far as a stage.
func (m *Machine) all(from uint64, want []string, s Stage) bool {
	for _, p := range m.peers {
		if p.progress(from, want) < s {
			return false
		}
	}
	return true
}

// any reports whether a peer has switched.
func (m *Machine) any(from uint64, want []string) bool {
	for _, p := range m.peers {
		if p.Epoch == from+1 && p.progress(from, want) == Switched {
			return true
		}
	}
	return false
}

func (m *Machine) sorted() []peer {
	return slices.SortedFunc(maps.Values(m.peers), func(a, b peer) int { return strings.Compare(a.Hub, b.Hub) })
}

// Waiting says what the change waits for; "" if there is none.
func (m *Machine) Waiting() string {
	var on []string
	from := m.self.Epoch
	switch m.self.Stage {
	case Learning:
		return "asks the other hubs which partitions are current"
	case Steady:
		return ""
	case Switched:
		from--
	}
	if !m.self.Done && m.self.Stage != Ready {
		return fmt.Sprintf("a change of partitions is %v", m.self.Stage)
	}
	for _, p := range m.sorted() {
		if s := p.progress(from, m.self.Want); s < m.self.Stage {
			on = append(on, fmt.Sprintf("hub %s, which is %v and wants %q", p.Hub, p.Stage, p.Want))
		}
	}
	for name, a := range m.round.asks {
		if n := len(a.heard); a.counted && !m.round.over && n < a.receivers {
			on = append(on, fmt.Sprintf("%d of %d answers on %q", a.receivers-n, a.receivers, name))
		}
	}
	if len(on) == 0 {
		on = append(on, "other hubs")
	}
	return fmt.Sprintf("a change of partitions is %v and waits for %s", m.self.Stage, strings.Join(on, ", "))
}
