package peers

import (
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
)

const (
	// period is the time between hellos of a hub to everyone. It is longer
	// where there are many hubs: a hub hears no more than some three hellos a
	// second.
	period  = 30 * time.Second
	perPeer = 300 * time.Millisecond
	// lives is how many periods a hub is remembered after it was last heard.
	lives = 4
	// The first hello is sent between firstHello and twice that after Start. So
	// hubs that start together do not all say hello at once, and a program that
	// ends at once does not say it at all.
	firstHello = 500 * time.Millisecond
	// settleTime is how long answers to the first hello are awaited.
	settleTime = 2 * time.Second

	// Answers are sent between firstAnswer and lastAnswer after the question,
	// and at least answerPause after the answers before.
	firstAnswer = 100 * time.Millisecond
	lastAnswer  = 500 * time.Millisecond
	answerPause = time.Second
	// maxInboxes is how many hubs are answered one by one.
	maxInboxes = 4

	// firstRetry and lastRetry bound the pause after a hello that the backend
	// did not take. The pause doubles.
	firstRetry = time.Second
	lastRetry  = period

	// helloTime is how long a hub that is heard, and does not say hello, is taken
	// for one that is about to.
	helloTime = 2 * time.Second
	// lateTime is how long what a hub has sent before its end may still come.
	lateTime = 5 * time.Second

	// maxPeers bounds the hubs that are remembered.
	maxPeers = 4096
)

// A State says how much of the others a hub can know.
type State uint8

const (
	// Silent means that no hello of the hub has reached the backend. The others
	// may not know of it, and it does not know of them.
	Silent State = iota
	// Listening means that the first hello is out, and that answers may be on
	// their way.
	Listening
	// Settled means that the other hubs have had the time to answer.
	Settled
)

// A Table holds the hubs that one hub has heard of. It is made by New.
type Table struct {
	self  uint64
	level int

	state    State
	settles  time.Time // when Listening ends
	peers    map[uint64]peer
	crowded  time.Time // until then there may be hubs that had to be forgotten too early
	lowest   int       // of all levels
	until    time.Time // lowest is right until then; zero: it has to be found
	nextSay  time.Time // when the next hello to everyone is due
	failures int       // hellos in a row that the backend did not take

	asked    []uint64 // hubs that wait for an answer, at most maxInboxes
	askedAll bool     // there are more
	answers  time.Time
	answered time.Time
}

// A peer is another hub.
type peer struct {
	level int       // 0: it has not said
	first time.Time // when something first came from it
	heard time.Time // when something last came from it
	gone  time.Time // when it was said to have ended; zero: it has sent something long after that
}

// A Say is what a hub has to send now.
type Say struct {
	Everyone bool     // a hello to everyone
	Ask      bool     // which asks for answers
	Inboxes  []uint64 // hubs that get one in their inbox
}

// Nothing reports whether there is nothing to send.
func (s *Say) Nothing() bool { return !s.Everyone && len(s.Inboxes) == 0 }

// New returns the table of a hub that reads a level. See Start.
func New(self uint64, level int) *Table {
	return &Table{self: self, level: level, peers: make(map[uint64]peer)}
}

// Start says that the hub can be heard from now on. Next is called after it.
func (t *Table) Start(now time.Time) { t.nextSay = now.Add(firstHello + t.spread(firstHello)) }

// spread returns a part of d that differs from hub to hub.
func (t *Table) spread(d time.Duration) time.Duration { return time.Duration(t.self % uint64(d)) }

// Hello notes what a hub says of itself. It reports whether the time of the
// next Say has changed.
func (t *Table) Hello(h *wire.Hello, now time.Time) (sooner bool) {
	if h.Hub == t.self {
		return false
	}
	t.note(h.Hub, h.Level, now)
	if !h.Answer || t.state == Silent { // it will hear the first hello of this hub
		return false
	}
	return t.ask(h.Hub, now)
}

// ask notes that a hub wants an answer.
func (t *Table) ask(hub uint64, now time.Time) (sooner bool) {
	switch {
	case slices.Contains(t.asked, hub) || t.askedAll:
		return false
	case len(t.asked) == maxInboxes:
		t.asked, t.askedAll = nil, true
		return false
	}
	t.asked = append(t.asked, hub)
	if len(t.asked) > 1 {
		return false
	}
	t.answers = now.Add(firstAnswer + t.spread(lastAnswer-firstAnswer))
	if earliest := t.answered.Add(answerPause); t.answers.Before(earliest) {
		t.answers = earliest
	}
	return true
}

// Frame notes that a frame of a hub has come.
func (t *Table) Frame(hub uint64, now time.Time) {
	if hub != t.self {
		t.note(hub, 0, now)
	}
}

// note notes that a hub is there. A level of 0 means that it has not said its
// level.
func (t *Table) note(hub uint64, level int, now time.Time) {
	p, known := t.peers[hub]
	if !known && len(t.peers) == maxPeers {
		t.makeRoom(now)
	}
	if level != 0 && level != p.level || !known {
		p.level = level
		t.until = time.Time{}
	}
	if !known {
		p.first = now
	}
	if now.Sub(p.gone) >= lateTime {
		p.gone = time.Time{}
	}
	p.heard = now
	t.peers[hub] = p
}

// makeRoom forgets the hub that has not been heard for longest. That hub may
// still be there, of any release, which counts for as long as it would have
// been remembered.
func (t *Table) makeRoom(now time.Time) {
	var oldest uint64
	var heard time.Time
	for hub, p := range t.peers {
		if heard.IsZero() || p.heard.Before(heard) {
			oldest, heard = hub, p.heard
		}
	}
	delete(t.peers, oldest)
	t.crowded, t.until = now.Add(t.life()), time.Time{}
}

func (t *Table) period() time.Duration { return max(period, time.Duration(len(t.peers))*perPeer) }
func (t *Table) life() time.Duration   { return lives * t.period() }

// Next returns what to send now, and when to ask again if nothing happens
// before that. The caller sends s, and calls Said with the outcome.
func (t *Table) Next(now time.Time) (s Say, again time.Time) {
	t.forget(now)
	if t.state == Listening && !now.Before(t.settles) {
		t.state, t.until = Settled, time.Time{}
	}
	waiting := len(t.asked) > 0 || t.askedAll
	if !now.Before(t.nextSay) {
		s.Everyone, s.Ask = true, t.state == Silent
	}
	if waiting && !now.Before(t.answers) {
		s.Everyone = s.Everyone || t.askedAll
		if !s.Everyone {
			s.Inboxes = t.asked
		}
		t.answered, waiting = now, false
		t.asked, t.askedAll = nil, false
	}
	if s.Everyone {
		t.nextSay = now.Add(lastRetry) // unless Said changes it
	}
	again = t.nextSay
	if waiting && t.answers.Before(again) {
		again = t.answers
	}
	if t.state == Listening && t.settles.Before(again) {
		again = t.settles
	}
	return s, again
}

// Said notes whether the backend took a hello to everyone.
func (t *Table) Said(taken bool, now time.Time) {
	if !taken {
		t.nextSay = now.Add(min(firstRetry<<min(t.failures, 10), lastRetry))
		t.failures++
		return
	}
	t.failures = 0
	if t.state == Silent {
		t.state, t.settles = Listening, now.Add(settleTime)
	}
	t.nextSay = now.Add(t.period() - t.spread(period/4))
}

// forget drops hubs that have not been heard for long enough.
func (t *Table) forget(now time.Time) {
	life := t.life()
	for hub, p := range t.peers {
		if now.Sub(p.heard) >= life {
			delete(t.peers, hub)
			t.until = time.Time{}
		}
	}
}

// State returns the state of the table.
func (t *Table) State() State { return t.state }

// Gone notes that a hub is said to have ended. What it has sent before may come
// later, and does not bring it back. In case it is still there, its level
// counts for as long as that of a silent hub.
func (t *Table) Gone(hub uint64, now time.Time) {
	if p, known := t.peers[hub]; known {
		p.gone = now
		t.peers[hub] = p
	}
}

// Others returns the other hubs that are there, with the time at which each was
// heard last. A hub that does not say hello, such as one that was killed too
// early, or that only publishes, is among them only for helloTime.
func (t *Table) Others(now time.Time) map[uint64]time.Time {
	t.forget(now)
	others := make(map[uint64]time.Time, len(t.peers))
	for hub, p := range t.peers {
		if p.gone.IsZero() && (p.level != 0 || now.Sub(p.first) < helloTime) {
			others[hub] = p.heard
		}
	}
	return others
}

// Level returns the lowest level among the hubs that are there: all of them can
// read it. While it is not known which hubs are there, it is the level of the
// oldest release.
func (t *Table) Level(now time.Time) int {
	if now.Before(t.until) {
		return t.lowest
	}
	t.forget(now)
	t.lowest, t.until = t.level, now.Add(t.period())
	for _, p := range t.peers {
		t.lowest = min(t.lowest, max(p.level, wire.OldestLevel))
		if dies := p.heard.Add(t.life()); dies.Before(t.until) {
			t.until = dies
		}
	}
	switch {
	case now.Before(t.crowded):
		t.lowest = min(t.lowest, wire.OldestLevel)
		if t.crowded.Before(t.until) {
			t.until = t.crowded
		}
	case t.state != Settled:
		t.lowest = min(t.lowest, wire.OldestLevel)
	}
	return t.lowest
}
