package feed

import (
	"errors"
	"fmt"
	"time"
)

// Why a session at a replica must end.
var (
	// ErrNoReplica means that the server is no replica.
	ErrNoReplica = errors.New("the server is no replica any longer")
	// ErrNoBus means that the primary has no connection to the replica.
	ErrNoBus = errors.New("the primary has no connection to the replica")
	// ErrChanged means that messages may have been lost on the way to the
	// replica: it has another primary, or its primary had to connect again.
	ErrChanged = errors.New("the replica has another primary, or another connection from it")
	// ErrLost means that a probe was lost on the way to the replica.
	ErrLost = errors.New("the replica did not get a message that its primary accepted")
	// ErrLate means that the replica is late, or deaf.
	ErrLate = errors.New("what is published at the primary does not arrive at the replica in time")
)

// A State is how much is known about a feed.
type State uint8

const (
	// Unknown: the replica has said nothing of itself.
	Unknown State = iota
	// Connected: it has said that its primary is connected to it.
	Connected
	// Answered: after that a probe came.
	Answered
	// Fed: after that it has said that the connection is the same, so the probe
	// came over it.
	Fed
)

func (s State) String() string { return [...]string{"Unknown", "Connected", "Answered", "Fed"}[s] }

// A View is what a replica says of itself.
type View struct {
	Primary string // the address of its primary; "": it is no replica
	Since   int64  // when the primary's connection was accepted, in ms; 0: there is none
}

// A Feed is what is known about the feed of a replica during one session. The
// zero value knows nothing. Its owner's lock guards it.
type Feed struct {
	state  State
	view   View
	probes []probe // sent and not heard, in order
	last   uint64  // the number of the last probe that was sent
	viewed time.Time
	fresh  time.Time // when the last probe that was heard was sent
}

// A probe is one that was sent.
type probe struct {
	number   uint64
	sent     time.Time
	accepted bool
}

// State returns how much is known.
func (f *Feed) State() State { return f.state }

// Viewed takes what the replica says of itself.
func (f *Feed) Viewed(v View, now time.Time) error {
	switch {
	case v.Primary == "":
		return ErrNoReplica
	case v.Since == 0:
		return ErrNoBus
	case f.state == Unknown:
		f.view, f.state, f.fresh = v, Connected, now
	case v != f.view:
		return ErrChanged
	case f.state == Answered:
		f.state = Fed
	}
	f.viewed = now
	return nil
}

// Probe returns the number of a probe that is about to be sent.
func (f *Feed) Probe(now time.Time) (number uint64) {
	f.last++
	f.probes = append(f.probes, probe{number: f.last, sent: now})
	return f.last
}

// Accepted notes that the primary has accepted a probe.
func (f *Feed) Accepted(number uint64) {
	for i := range f.probes {
		if f.probes[i].number == number {
			f.probes[i].accepted = true
		}
	}
}

// Forget gives up the probes under way: the channel that they were sent to is
// no longer subscribed.
func (f *Feed) Forget() { f.probes = nil }

// Heard notes that the replica has sent a probe, and reports whether it is one
// that was sent and not given up. The probes before it have arrived too, or
// will not: they were sent one after the other.
func (f *Feed) Heard(number uint64) (known bool, err error) {
	for i, p := range f.probes {
		switch {
		case p.number == number:
			f.fresh = p.sent
			f.probes = f.probes[i+1:]
			if f.state == Connected {
				f.state = Answered
			}
			return true, nil
		case p.number < number && p.accepted:
			return false, fmt.Errorf("%w: probe %d", ErrLost, p.number)
		}
	}
	return false, nil
}

// Check returns an error if the last probe that was heard, or the last view, is
// older than patience.
func (f *Feed) Check(now time.Time, patience time.Duration) error {
	if f.state == Unknown {
		return nil
	}
	if late := now.Sub(f.fresh); late > patience {
		return fmt.Errorf("%w: the last probe is %v old", ErrLate, late.Round(time.Millisecond))
	}
	if late := now.Sub(f.viewed); late > patience {
		return fmt.Errorf("%w: it has not said what it is connected to for %v", ErrLate, late.Round(time.Millisecond))
	}
	return nil
}
