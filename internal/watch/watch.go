package watch

import (
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
)

// A State is what a Watch knows of a hub.
type State uint8

const (
	// Unknown means that the hub was never heard of, or is long gone.
	Unknown State = iota
	// Alive means that nothing is known against the hub.
	Alive
	// Suspected means that probes reached nobody, or were not answered. Only
	// those that watch the hub suspect it; to everybody else it is Alive.
	Suspected
	// Gone means that the hub has ended. It is remembered for a while, so that
	// a list that is out of date does not bring it back.
	Gone
)

// Params are the times of a Watch.
type Params struct {
	Watchers   int           // of each hub
	Interval   time.Duration // between probes of a hub
	Suspicious time.Duration // between probes of a hub that is suspected
	Tick       time.Duration // between looks at what is due
	AckTimeout time.Duration // silence after a probe until a hub is suspected
	Absent     time.Duration // for how long probes reach nobody until a hub is gone
	Silent     time.Duration // silence after a probe until a hub is gone
	Grave      time.Duration // for how long a hub that is gone is remembered
}

// Default are the parameters that the package comment speaks of.
var Default = Params{
	Watchers:   3,
	Interval:   time.Second,
	Suspicious: 500 * time.Millisecond,
	Tick:       250 * time.Millisecond,
	AckTimeout: 1500 * time.Millisecond,
	Absent:     2 * time.Second,
	Silent:     5 * time.Second,
	Grave:      time.Minute,
}

const (
	// maxHubs bounds the hubs that are remembered, since hubs may be forged. More
	// are ignored.
	maxHubs = 16384
	// rosterPage is the number of hubs in one payload.
	rosterPage = 2048
)

// A Watch is one hub's list of the others.
type Watch struct {
	params Params
	self   hub
	hubs   map[uint64]*hub
	graves []*hub // those that are gone, in the order in which they went

	alive   int    // hubs that are there, with this one
	digest  uint64 // of them
	watched []*hub // by this one; sorted by ID
	stale   bool   // watched is out of date

	number uint64    // of probes
	next   time.Time // when Tick is due; zero: nothing is watched
	last   time.Time // the last Tick
	out    Actions
}

// A hub is what is known of one.
type hub struct {
	id          uint64
	incarnation uint64
	since       uint64
	state       State
	above       int // hubs that rank higher than this one as watchers of the hub
	heard       time.Time
	goneAt      time.Time
	toldAt      time.Time // when it was last told that it is gone

	// While this hub watches it.
	probeAt time.Time // when the next probe is due
	sent    time.Time // when the last probe was sent
	waiting time.Time // since when an ack is waited for; zero: none is
	absent  time.Time // since when probes have reached nobody; zero: they do
	differs bool      // its list differed at the last ack
}

// Actions are what the owner of a Watch does after an event.
type Actions struct {
	Probe []Message         // a probe each; Watch.Probed is told what became of it
	Tell  []Message         // to inboxes
	Say   []control.Payload // to everyone

	Came []uint64 // hubs that are there now
	Met  []uint64 // those of Came of which nothing was known before
	Left []uint64 // hubs that have ended in order
	Died []uint64 // hubs that have ended otherwise
	// Back means that other hubs took this one for gone, and now learn that it is
	// not.
	Back bool
}

// A Message goes to the inbox of a hub.
type Message struct {
	Hub     uint64
	Payload control.Payload
}

// New returns the Watch of a hub, which knows of no other hub. Since is when
// the hub began, in ms since 1970.
func New(self, since uint64, p Params) *Watch {
	w := &Watch{params: p, self: hub{id: self, since: since, state: Alive}, hubs: make(map[uint64]*hub)}
	w.alive, w.digest = 1, sum(&w.self)
	return w
}

// take returns what is to be done.
func (w *Watch) take() Actions {
	a := w.out
	w.out = Actions{}
	return a
}

// Start is called when the hub hears what is said to everyone, and again
// whenever that was interrupted.
func (w *Watch) Start() Actions {
	w.say(w.hello(false))
	return w.take()
}

// Leave is called when the hub is about to close.
func (w *Watch) Leave() Actions {
	w.say(w.hello(true))
	return w.take()
}

// State returns what is known of a hub.
func (w *Watch) State(id uint64) State {
	if h := w.find(id); h != nil {
		return h.state
	}
	return Unknown
}

// LastHeard returns when something last came from a hub; zero if nothing has.
func (w *Watch) LastHeard(id uint64) time.Time {
	if h := w.find(id); h != nil {
		return h.heard
	}
	return time.Time{}
}

// Since returns when a hub began, as it says; zero if it is not known.
func (w *Watch) Since(id uint64) time.Time {
	if h := w.find(id); h != nil {
		return time.UnixMilli(int64(h.since))
	}
	return time.Time{}
}

// Hubs returns the hubs that are there, with this one, sorted.
func (w *Watch) Hubs() []uint64 {
	ids := make([]uint64, 0, w.alive)
	ids = append(ids, w.self.id)
	for id, h := range w.hubs {
		if h.state != Gone {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Len returns the number of hubs that are there, with this one.
func (w *Watch) Len() int { return w.alive }

// Next returns when Tick is due; zero if nothing is.
func (w *Watch) Next() time.Time { return w.next }

func (w *Watch) find(id uint64) *hub {
	if id == w.self.id {
		return &w.self
	}
	return w.hubs[id]
}

func (w *Watch) say(p control.Payload) { w.out.Say = append(w.out.Say, p) }

func (w *Watch) tell(hub uint64, p control.Payload) {
	w.out.Tell = append(w.out.Tell, Message{hub, p})
}

func (w *Watch) hello(leaving bool) control.Payload {
	return &control.Hello{Incarnation: w.self.incarnation, Since: w.self.since, Leaving: leaving}
}

// Heard is called for whatever comes from a hub.
func (w *Watch) Heard(from uint64, now time.Time) Actions {
	w.hear(from, now)
	return w.take()
}

// hear notes a sign of life, and reports whether the hub is known to be there.
func (w *Watch) hear(from uint64, now time.Time) bool {
	h := w.find(from)
	if h == nil {
		return false
	}
	if h.state == Gone {
		w.tellGone(h, now)
		return false
	}
	h.heard = now
	h.waiting, h.absent = time.Time{}, time.Time{}
	h.state = Alive
	return true
}

// tellGone tells a hub that is heard that the others take it for gone.
func (w *Watch) tellGone(h *hub, now time.Time) {
	if h.toldAt.IsZero() || now.Sub(h.toldAt) >= w.params.Interval {
		h.toldAt = now
		w.tell(h.id, &control.Verdict{Gone: true, Hub: h.id, Incarnation: h.incarnation})
	}
}

// Hello takes a hub's announcement that it is there, or about to leave.
func (w *Watch) Hello(from uint64, m *control.Hello, now time.Time) Actions {
	switch {
	case from == w.self.id:
		w.hear(from, now)
		return w.take()
	case m.Leaving && w.hubs[from] == nil: // it ends before it was there
		w.end(from, m.Incarnation, now)
		w.out.Left = append(w.out.Left, from)
		return w.take()
	}
	k := control.Known{Hub: from, Incarnation: m.Incarnation, Since: m.Since}
	came := w.enter(k, now)
	h := w.hubs[from]
	switch {
	case h == nil: // there are too many
	case m.Leaving && h.state != Gone:
		w.bury(h, now)
		w.out.Left = append(w.out.Left, from)
	case came && w.watches(h):
		h.heard = now
		w.sendRoster(from, false)
	default:
		w.hear(from, now)
	}
	return w.take()
}

// Verdict takes what a hub says of another one.
func (w *Watch) Verdict(from uint64, m *control.Verdict, now time.Time) Actions {
	switch {
	case m.Hub == w.self.id:
		w.refute(from, m.Incarnation, m.Gone)
	case m.Gone:
		w.end(m.Hub, m.Incarnation, now)
	}
	return w.take()
}

// refute answers a hub that suspects this one, or takes it for gone: everyone,
// or that hub alone if it has only missed an earlier answer.
func (w *Watch) refute(from, incarnation uint64, gone bool) {
	switch {
	case incarnation >= w.self.incarnation:
		w.digest ^= sum(&w.self)
		w.self.incarnation = incarnation + 1
		w.digest ^= sum(&w.self)
		w.say(w.hello(false))
	case gone:
		w.tell(from, w.hello(false))
	}
	w.out.Back = w.out.Back || gone
}

// enter adds a hub to the list, and reports whether it was not there before. A
// hub that is gone comes back only with a higher incarnation.
func (w *Watch) enter(k control.Known, now time.Time) (came bool) {
	h := w.hubs[k.Hub]
	switch {
	case h == nil && len(w.hubs) >= maxHubs:
		return false
	case h == nil:
		h = &hub{id: k.Hub}
		w.hubs[k.Hub] = h
		w.out.Met = append(w.out.Met, h.id)
	case k.Incarnation <= h.incarnation:
		return false
	case h.state != Gone: // it has refuted something
		w.digest ^= sum(h)
		h.incarnation = k.Incarnation
		w.digest ^= sum(h)
		return false
	}
	w.graves = slices.DeleteFunc(w.graves, func(g *hub) bool { return g == h })
	*h = hub{id: k.Hub, incarnation: k.Incarnation, since: k.Since, state: Alive}
	h.probeAt = now.Add(time.Duration(control.Mix(h.id^control.Mix(w.self.id)) % uint64(w.params.Interval))) // spread
	w.count(h, 1)
	w.out.Came = append(w.out.Came, h.id)
	w.wake(now)
	return true
}

// end notes that a hub is gone, as another hub says. A hub that was never heard
// of is remembered as gone, too, since its own Hello may still arrive.
func (w *Watch) end(id, incarnation uint64, now time.Time) {
	h := w.hubs[id]
	switch {
	case h == nil && len(w.hubs) >= maxHubs:
	case h == nil:
		h = &hub{id: id, incarnation: incarnation, state: Gone, goneAt: now}
		w.hubs[id] = h
		w.graves = append(w.graves, h)
		w.wake(now)
	case h.state != Gone && incarnation >= h.incarnation:
		w.digest ^= sum(h)
		h.incarnation = incarnation
		w.digest ^= sum(h)
		w.bury(h, now)
		w.out.Died = append(w.out.Died, id)
	case h.state == Gone:
		h.incarnation = max(h.incarnation, incarnation)
	}
}

// wake makes Tick due soon. If no hub was watched before, Tick may be due only
// when a hub that is gone is to be forgotten.
func (w *Watch) wake(now time.Time) {
	if next := now.Add(w.params.Tick); w.next.IsZero() || next.Before(w.next) {
		w.next, w.last = next, now
	}
}

// bury removes a hub from the list of those that are there.
func (w *Watch) bury(h *hub, now time.Time) {
	w.count(h, -1)
	h.state, h.goneAt = Gone, now
	w.graves = append(w.graves, h)
}
