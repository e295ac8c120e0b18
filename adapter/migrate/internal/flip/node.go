package flip

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A Node is one hub's part of a migration. See New.
type Node struct {
	id   string
	hold bool
	time Timing

	phase Phase
	since time.Time // of the phase
	heard bool      // what is announced at the old backend is heard
	alone bool      // there is no log: the hub stays in Both

	// The log, as it was read last.
	fresh       bool // it has been read since it was last wanted
	next        uint64
	joins       map[string]time.Time // hubs that have joined, and when this one knew
	incarnation int                  // of the join

	peers map[string]*peer
	echo  time.Time
	ready bool

	attempt       uint64
	members       []string // of the attempt that this hub leads; nil: it does not lead
	paused, asked bool     // nothing is under way; the entry of the attempt was appended
	idle          bool
	object        uint64 // an attempt without this hub, which it ends

	agreed    time.Time            // all agree since then; zero: they do not
	wanted    bool                 // an attempt begins when the log has been read
	notBefore time.Time            // the next attempt
	count     int                  // of hubs at the old backend; -1: it does not say; or unasked
	strangers map[uint64]time.Time // hubs that were heard, and are not known to migrate
	hubs      map[uint64]bool      // known to migrate

	beatAt, readAt time.Time
	announce       bool // at once
	noted          bool
}

// A peer is what another hub has said last.
type peer struct {
	Announcement
	heard time.Time
}

// name returns the ID of the hub, or of its node as long as that is not known.
func (p *peer) name() string {
	if p.Hub == 0 {
		return p.ID
	}
	return fmt.Sprintf("%016x", p.Hub)
}

// maxHubs bounds the hubs that are remembered.
const maxHubs = 1 << 14

// unasked is a count that is not known yet.
const unasked = -2

// New returns the node of a hub. With hold, the hub prevents the flip.
func New(id string, hold bool, timing Timing, now time.Time) *Node {
	return &Node{
		id: id, hold: hold, time: timing, since: now, count: unasked,
		joins: make(map[string]time.Time), peers: make(map[string]*peer), hubs: make(map[uint64]bool), strangers: make(map[uint64]time.Time),
	}
}

// Phase returns the phase of the hub.
func (n *Node) Phase() Phase { return n.phase }

// Peers returns how many other hubs are there.
func (n *Node) Peers(now time.Time) int { return len(n.live(now)) - 1 }

func (n *Node) enter(p Phase, now time.Time) {
	if n.phase == p {
		return
	}
	n.phase, n.since, n.announce = p, now, true
	n.agreed, n.wanted, n.fresh, n.members = time.Time{}, false, false, nil
	n.paused, n.asked = false, false
	n.readAt = time.Time{}
	if p == Both {
		n.echo = now
	}
}

// Subscribed says that the hub hears what is announced at the old backend.
func (n *Node) Subscribed() { n.heard = true }

// Flip says that the hubs have flipped, as a note at the new backend says.
func (n *Node) Flip(now time.Time) { n.enter(Flipped, now) }

// Noted says that the note is at the new backend.
func (n *Node) Noted() { n.noted = true }

// Logless says that the old backend keeps no log. The hubs never flip.
func (n *Node) Logless(now time.Time) {
	if n.alone = true; n.phase == Asking {
		n.enter(Both, now)
	}
}

// Failed says that reading or appending has failed.
func (n *Node) Failed(now time.Time) {
	n.fresh, n.asked = false, false
	n.readAt = now.Add(n.time.Beat / 4)
}

// SetReady says whether the hub listens to both.
func (n *Node) SetReady(ready bool) {
	if n.ready != ready {
		n.ready, n.announce = ready, true
	}
}

// SetIdle says whether nothing that the hub publishes is under way, and all its
// subscriptions are confirmed at both.
func (n *Node) SetIdle(idle bool) { n.idle = idle }

// Counted says how many hubs the old backend has; -1: it cannot tell.
func (n *Node) Counted(count int) { n.count = count }

// Hello says that a hub was heard at the old backend.
func (n *Node) Hello(hub uint64, now time.Time) {
	if !n.hubs[hub] && len(n.strangers) < maxHubs {
		n.strangers[hub] = now
	}
}

// Known says that a hub takes part.
func (n *Node) Known(hub uint64) {
	if hub != 0 && len(n.hubs) < maxHubs {
		n.hubs[hub] = true
		delete(n.strangers, hub)
	}
}

// Heard takes an announcement. Old means that it came by the old backend.
func (n *Node) Heard(a *Announcement, old bool, now time.Time) {
	n.Known(a.Hub)
	if a.ID == n.id {
		if old {
			n.echo = now
		}
		return
	}
	if a.Phase == Flipped {
		n.Flip(now)
	}
	n.peers[a.ID] = &peer{*a, now}
	maps.DeleteFunc(n.peers, func(_ string, p *peer) bool { return now.Sub(p.heard) > 4*n.time.Dead })
	if a.Pause == 0 || n.phase != Both {
		return
	}
	switch {
	case !slices.Contains(a.Members, n.id):
		n.object = a.Pause
	case n.ready && !n.hold && !n.alone && a.Pause >= n.next:
		n.pause(a.Pause, now)
	}
}

func (n *Node) pause(attempt uint64, now time.Time) {
	n.enter(Pausing, now)
	n.attempt = attempt
	n.readAt = now.Add(n.time.Beat / 2)
}

// Told says that something was appended to the log.
func (n *Node) Told() { n.readAt = time.Time{} }

// Log takes the whole log.
func (n *Node) Log(entries []Entry, now time.Time) {
	n.fresh, n.next = true, 1
	joined, decided, committed := false, false, false
	joins := make(map[string]time.Time)
	for _, e := range entries {
		n.next = max(n.next, e.At+1)
		switch {
		case e.Kind == Commit && e.At == e.Attempt:
			committed = true
		case e.Kind == Join:
			joins[e.Node] = now
			if at, ok := n.joins[e.Node]; ok {
				joins[e.Node] = at
			}
			joined = joined || e.Node == n.joinName()
		}
		decided = decided || e.At == n.attempt || e.Attempt == n.attempt && e.Kind != Join
	}
	n.joins = joins
	switch {
	case committed:
		n.enter(Flipped, now)
	case n.phase == Asking && joined:
		n.enter(Both, now)
	case n.phase == Pausing && decided:
		n.enter(Both, now)
		n.notBefore = now.Add(n.time.Retry)
	case n.phase == Both && n.wanted:
		if n.wanted = false; n.disagree(now) == "" && n.stranger(now) == "" {
			n.lead(now)
		}
	}
	n.readAt = now.Add(n.time.Beat / 2)
	if n.phase == Asking { // another hub was faster, perhaps
		n.readAt = time.Time{}
	}
}

func (n *Node) joinName() string { return fmt.Sprintf("%s.%d", n.id, n.incarnation) }

// lead begins an attempt.
func (n *Node) lead(now time.Time) {
	members := slices.Sorted(maps.Keys(n.live(now)))
	n.pause(n.next, now)
	n.members = members
}

// settle returns how long a number of hubs must agree. A hub says hello every
// half minute, or less often where there are more than a hundred.
func (n *Node) settle(hubs int) time.Duration {
	if n.time.Settle > 0 {
		return n.time.Settle
	}
	return max(150*time.Second, time.Duration(hubs)*1500*time.Millisecond)
}

// live returns the hubs that are there, this one too.
func (n *Node) live(now time.Time) map[string]*peer {
	there := map[string]*peer{n.id: nil}
	for id, p := range n.peers {
		if now.Sub(p.heard) <= n.time.Dead {
			there[id] = p
		}
	}
	return there
}

// disagree says what has to change before the hubs agree. It is empty if they
// do.
func (n *Node) disagree(now time.Time) string {
	switch {
	case n.hold:
		return "Options.Hold is set"
	case n.alone:
		return "the old backend keeps no history, so hubs cannot agree"
	case !n.ready:
		return "this hub does not listen to both yet"
	case now.Before(n.notBefore):
		return "an attempt has failed, and the next one has not begun yet"
	}
	live := n.live(now)
	ids := slices.Sorted(maps.Keys(live)) // so that the answer stays the same while nothing changes
	for _, id := range ids {
		switch p := live[id]; {
		case p == nil:
		case now.Sub(p.heard) > 3*n.time.Beat:
			return "hub " + p.name() + " has not been heard for a while"
		case !p.Ready || p.Phase != Both:
			return "hub " + p.name() + " does not listen to both yet"
		}
	}
	if first := live[ids[0]]; first != nil {
		return "hub " + first.name() + " begins the flip: its Status says what it is waiting for"
	}
	for name, at := range n.joins {
		id := name[:len(name)-len(suffix(name))]
		if _, ok := n.peers[id]; !ok && id != n.id && now.Sub(at) <= n.time.Dead {
			return "hub " + id + " has joined and was not heard yet"
		}
	}
	switch {
	case n.count == unasked:
		return "the old backend has not been asked how many hubs there are"
	case n.count == 0:
		return "the old backend has no hubs of this prefix: Options.Prefix of the adapter and of the hub must be the same"
	case n.count >= 0 && n.count != len(live):
		return fmt.Sprintf("the old backend has %d hubs, and %d of them take part", n.count, len(live))
	}
	return ""
}

// stranger says which hub was heard a short while ago and does not take part;
// empty: none.
func (n *Node) stranger(now time.Time) string {
	settle := n.settle(len(n.live(now)))
	for hub, at := range n.strangers {
		if now.Sub(at) < settle {
			return fmt.Sprintf("hub %016x does not take part, and was heard %v ago", hub, now.Sub(at).Round(time.Second))
		}
	}
	return ""
}

// suffix returns the incarnation at the end of a name in the log, with its dot.
func suffix(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			return name[i:]
		}
	}
	return ""
}

// Why says what the hub is waiting for; empty: nothing.
func (n *Node) Why(now time.Time) string {
	switch n.phase {
	case Asking:
		return "this hub does not know whether the others have flipped"
	case Both:
		if why := cmp.Or(n.disagree(now), n.stranger(now)); why != "" {
			return why
		}
		return fmt.Sprintf("all hubs listen to both, and flip when they have done so for %v", n.settle(len(n.live(now))))
	case Pausing:
		return "the hubs are about to flip"
	}
	return ""
}
