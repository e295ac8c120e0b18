// Package numbers finds out which frames a NATS server, or the way between two
// of them, has lost. NATS itself does not say: a server that has no route to
// another one, and a client that reads too slowly, drop messages in silence.
//
// Each publisher numbers its frames in each partition from 1, and says from
// time to time how far it has come (Mark), so that the loss of its last frames
// is noticed as well. The frames of a stream have the stream's own numbers, and
// hubs say how far they have seen it (Claim).
//
//	frame 6, frame 7, frame 9 …      8 is missing: a gap
//	frame 6, frame 7, mark 8         8 is missing: a gap
//	frame 6, nothing for DeadAfter   the publisher died: a gap, since
//	                                 nobody will say what came after 6
//
// A partition is in one of three states. Off: it is not subscribed. Opening: a
// subscription is being made, or made again; numbers are noted, and missing
// frames are no gap, because none was promised. Standing: all frames are
// promised, so each missing one is a gap.
//
// A Tracker has no lock, clock or goroutine.
package numbers

import "time"

const (
	// DeadAfter is how long a publisher may be silent before it counts as dead.
	// Publishers send a Mark every second.
	DeadAfter = 6 * time.Second
	// claimGrace is how long a frame of a stream may be on its way after others
	// have seen it: it does not come the same way as what they say of it.
	claimGrace = 500 * time.Millisecond
)

// An ID names a publisher: the process's end of the adapter, in one life.
type ID uint64

// A State says whether the frames of a partition are promised.
type State uint8

const (
	Off      State = iota // not subscribed
	Opening               // subscribed, not confirmed; or the link was broken since
	Standing              // confirmed
)

// A Tracker knows how far each publisher has come in each partition.
type Tracker struct {
	partitions []partition
	peers      map[ID]*peer
}

type partition struct {
	state State
	kept  stream
}

// A peer is a publisher as it was heard of.
type peer struct {
	heard time.Time
	seen  []uint64 // by partition: 1 more than its last number; 0: nothing is known
}

// A stream is the numbers of a partition's kept frames.
type stream struct {
	known    bool
	last     uint64 // that was received
	reported uint64 // up to here what is missing was reported
	claimed  uint64 // others have seen it; 0: nothing is open
	since    time.Time
}

// New returns a tracker of n partitions, all of which are off.
func New(n int) *Tracker {
	return &Tracker{partitions: make([]partition, n), peers: make(map[ID]*peer)}
}

// Set changes the state of a partition. From Off on nothing is known.
func (t *Tracker) Set(p int, s State) {
	if was := t.partitions[p].state; was == Off || s == Off {
		t.partitions[p].kept = stream{}
		for _, peer := range t.peers {
			peer.seen[p] = 0
		}
	}
	t.partitions[p].state = s
}

// State returns the state of a partition.
func (t *Tracker) State(p int) State { return t.partitions[p].state }

// Peers calls f for each publisher that is alive.
func (t *Tracker) Peers(f func(ID)) {
	for id := range t.peers {
		f(id)
	}
}

func (t *Tracker) hear(id ID, now time.Time) *peer {
	p := t.peers[id]
	if p == nil {
		p = &peer{seen: make([]uint64, len(t.partitions))}
		t.peers[id] = p
	}
	p.heard = now
	return p
}

// Frame notes that frame n of a publisher has arrived. If it is not to be
// delivered, it was reported missing before, or it has arrived before. A gap
// means that frames before it are missing.
func (t *Tracker) Frame(p int, id ID, n uint64, now time.Time) (deliver, gap bool) {
	peer := t.hear(id, now)
	seen := peer.seen[p]
	if seen > 0 && n < seen {
		return false, false
	}
	peer.seen[p] = n + 1
	// A publisher that was never heard of begins with 1.
	return true, t.partitions[p].state == Standing && n > max(seen, 1)
}

// Mark notes that a publisher has sent n frames so far. A gap means that some
// of them are missing.
func (t *Tracker) Mark(p int, id ID, n uint64, now time.Time) (gap bool) {
	peer := t.hear(id, now)
	if t.partitions[p].state == Off {
		return false
	}
	seen := peer.seen[p]
	if n+1 <= seen {
		return false
	}
	peer.seen[p] = n + 1
	return t.partitions[p].state == Standing && n > 0
}

// Heard notes that a publisher lives.
func (t *Tracker) Heard(id ID, now time.Time) { t.hear(id, now) }

// Resume restarts the time in which each publisher must be heard, because
// nothing could be heard until now.
func (t *Tracker) Resume(now time.Time) {
	for _, p := range t.peers {
		p.heard = now
	}
}

// Bye forgets a publisher that has closed, after it has said how far it came.
func (t *Tracker) Bye(id ID) { delete(t.peers, id) }

// Kept notes that frame n of a partition's stream has come.
func (t *Tracker) Kept(p int, n uint64) (gap bool) {
	s := &t.partitions[p].kept
	// A stream that was never heard of begins with 1. If the numbers go back, it
	// is another stream.
	missing := n > s.last+1 && n-1 > s.reported || s.known && n <= s.last
	gap = missing && t.partitions[p].state == Standing
	if n <= s.last {
		s.reported = 0
	}
	s.known, s.last = true, n
	if s.claimed <= n {
		s.claimed = 0
	}
	return gap
}

// Claim notes that others have seen frame n of a partition's stream.
func (t *Tracker) Claim(p int, n uint64, now time.Time) {
	s := &t.partitions[p].kept
	switch state := t.partitions[p].state; {
	case state == Off:
	case !s.known && state == Opening: // the frames that it has now were kept before this hub subscribed
		s.known, s.last = true, n
	case state == Opening:
		s.last = max(s.last, n)
	case n <= max(s.last, s.reported, s.claimed):
	default:
		if s.claimed == 0 {
			s.since = now
		}
		s.claimed = n
	}
}

// Tick calls gap for each partition in which missing frames can only be noticed
// by time: the publisher is dead, or a frame that others have seen has not
// come.
func (t *Tracker) Tick(now time.Time, gap func(p int)) {
	for id, peer := range t.peers {
		if now.Sub(peer.heard) < DeadAfter {
			continue
		}
		delete(t.peers, id)
		for p, seen := range peer.seen {
			if seen > 1 && t.partitions[p].state == Standing {
				gap(p)
			}
		}
	}
	for p := range t.partitions {
		s := &t.partitions[p].kept
		if s.claimed == 0 || now.Sub(s.since) < claimGrace {
			continue
		}
		s.known, s.reported, s.claimed = true, s.claimed, 0
		if t.partitions[p].state == Standing {
			gap(p)
		}
	}
}
