// Package lane puts what two backends bring for one channel into one order,
// while hubs change from the old backend to the new one.
//
//	        something comes by the new one, or          nothing more comes
//	        the hubs have flipped and the old one breaks    by the old one
//	Old ─────────────────────────────────────────▶ Draining ──────▶ New
//	 the old one counts                             what the new     the new one
//	 │                                              one brings is    counts
//	 │                                              held             ▲
//	 └───────────────────────────────────────────────────────────────┘
//	        the hubs have flipped, and nothing more comes by the old one
//
// All hubs have stopped publishing to the old backend before the first publishes
// to the new one. So what the old one brings comes first. All of it has come
// when a marker has come, a frame that this hub, or another one, has published
// to the old backend after that; or when the old one reports an interruption.
// The owner finds out meanwhile where the history ended at the old one. It does
// both for a channel that is quiet, too, when the hubs have flipped: from then on
// the old backend may break without consequences.
//
// A frame of the old backend that comes after that is from a hub that knows
// nothing of the flip, or that had published it and did not know. It is
// delivered as it comes.
//
// A Lane has no lock, clock, goroutine or I/O. Its owner's lock guards it while
// a method runs, and while the calls that it returns are made.
package lane

import "github.com/fanoutgo/fanout/adapter"

// What is held at most; with more, a Lane does not wait any longer.
const (
	maxHeld      = 4096
	maxHeldBytes = 4 << 20
)

// A State is where a channel stands between the backends.
type State uint8

const (
	// Old: what the old backend brings is delivered, and the state of its
	// subscription is that of the channel. The new one has brought nothing.
	Old State = iota
	// Draining: as in Old, but the new one has brought something, which is
	// held.
	Draining
	// New: what either brings is delivered, and the state of the subscription
	// at the new one is that of the channel.
	New
)

// A Kind is a method of a receiver.
type Kind uint8

const (
	Receive Kind = iota
	ReceiveKept
	Interrupted
	Moving
	Restored
)

// A Call is a call of a receiver.
type Call struct {
	Kind  Kind
	Frame adapter.KeptFrame // without a position for Receive
}

func (c *Call) size() int { return len(c.Frame.Frame) }

// A status is what a backend, or the owner, has been told of a subscription.
type status uint8

const (
	up status = iota
	moving
	down
)

// after returns the status after a call.
func (s status) after(k Kind) status {
	switch k {
	case Interrupted:
		return down
	case Moving:
		return max(s, moving)
	case Restored:
		return up
	}
	return s
}

// A Lane is one channel of a hub. The zero Lane is Old, and has an old backend.
type Lane struct {
	state   State
	flipped bool
	told    status // the receiver
	old     status
	new     status // before what is held
	held    []Call
	bytes   int
	ended   bool // nothing more comes by the old backend
	headed  bool // copied is known
	// copied is where the history at the old backend ended. Up to its offset
	// the one at the new backend is a copy, in the epoch copy: those frames were
	// received from the old one. A history in a later epoch is none: the new
	// backend has lost the copy.
	copied adapter.Position
	copy   uint64           // 0: no frame has come by the new backend
	last   adapter.Position // of the frames that the old backend has brought
}

// Begin puts a lane into its state if the hubs have flipped before it began.
func (l *Lane) Begin() { l.state, l.flipped = New, true }

// State returns where the channel stands.
func (l *Lane) State() State { return l.state }

// NewDown reports whether the subscription at the new backend is interrupted.
func (l *Lane) NewDown() bool { return l.new != up }

// FromOld takes what the old backend has called, and appends the calls of the
// receiver that follow. For drain see FromNew.
func (l *Lane) FromOld(c Call, calls []Call) (_ []Call, drain bool) {
	l.old = l.old.after(c.Kind)
	switch c.Kind {
	case ReceiveKept:
		l.last = c.Frame.At
		return append(calls, c), false
	case Receive:
		return append(calls, c), false
	}
	if l.state == New || l.ended && c.Kind != Restored {
		return calls, false
	}
	calls = l.tell(c.Kind, calls)
	drain = l.begin(l.flipped && l.old != up)
	calls = l.end(l.old != up, calls)
	return calls, drain && l.state == Draining
}

// FromNew takes what the new backend has called. Drain reports that the owner
// is to find out where the history ended at the old backend, and to call Head;
// and to publish a marker there, and call Marked when it comes; or Drained when
// that takes too long.
func (l *Lane) FromNew(c Call, calls []Call) (_ []Call, drain bool) {
	if l.state == New {
		return l.deliver(c, calls), false
	}
	frame := c.Kind == Receive || c.Kind == ReceiveKept
	if l.state == Old && !frame && !l.flipped { // nobody publishes there yet
		l.new = l.new.after(c.Kind)
		return calls, false
	}
	drain = l.begin(true)
	l.held = append(l.held, c)
	l.bytes += c.size()
	if len(l.held) > maxHeld || l.bytes > maxHeldBytes {
		calls = l.Drained(calls)
	} else {
		calls = l.end(l.old != up, calls)
	}
	return calls, drain && l.state == Draining
}

// Flip says that the hubs have flipped. For drain see FromNew.
func (l *Lane) Flip(calls []Call) (_ []Call, drain bool) {
	l.flipped = true
	drain = l.begin(l.old != up)
	calls = l.end(l.old != up, calls)
	return calls, drain && l.state == Draining
}

// begin begins to hold what the new backend brings, if that is due.
func (l *Lane) begin(due bool) bool {
	if !due || l.state != Old {
		return false
	}
	l.state = Draining
	return true
}

// Head says where the history ended at the old backend. The first one counts.
func (l *Lane) Head(at adapter.Position, calls []Call) []Call {
	if !l.headed {
		l.copied, l.headed = at, true
	}
	return l.end(false, calls)
}

// NoHead says that nobody can tell where the history ended at the old backend.
// Then it ended, as far as this channel goes, with the last frame that came.
func (l *Lane) NoHead(calls []Call) []Call { return l.Head(l.last, calls) }

// Copied says in which epoch the copies are. Without it that is the epoch of the
// first frame that the new backend brings.
func (l *Lane) Copied(epoch uint64) { l.copy = epoch }

// Marked says that a marker has come by the old backend. It has no meaning before
// the hubs have flipped.
func (l *Lane) Marked(calls []Call) []Call { return l.end(true, calls) }

// end goes on with the new backend when nothing more comes by the old one.
func (l *Lane) end(ended bool, calls []Call) []Call {
	if l.state == New || l.state == Old && !l.flipped {
		return calls
	}
	l.ended = l.ended || ended
	if !l.ended || !l.headed {
		return calls
	}
	return l.Drained(calls)
}

// Drained goes on with the new backend in any case.
func (l *Lane) Drained(calls []Call) []Call {
	if l.state == New {
		return calls
	}
	l.state = New
	if !l.headed {
		l.copied, l.headed = l.last, true
	}
	switch {
	case l.new == up && l.told != up:
		calls = l.tell(Restored, calls)
	case l.new != up && l.told == up:
		calls = l.tell(Interrupted, calls)
	}
	held := l.held
	l.held, l.bytes = nil, 0
	for _, c := range held {
		calls = l.deliver(c, calls)
	}
	return calls
}

// deliver takes a call of the new backend, which counts.
func (l *Lane) deliver(c Call, calls []Call) []Call {
	switch c.Kind {
	case Receive:
		return append(calls, c)
	case ReceiveKept:
		at := c.Frame.At
		if l.copy == 0 {
			l.copy = at.Epoch
		}
		if at.Offset <= l.copied.Offset && at.Epoch == l.copy && at.Epoch != l.copied.Epoch {
			return calls
		}
		return append(calls, c)
	}
	l.new = l.new.after(c.Kind)
	return l.tell(c.Kind, calls)
}

// tell appends a notice, unless the receiver knows it.
func (l *Lane) tell(k Kind, calls []Call) []Call {
	next := l.told.after(k)
	if next == l.told {
		return calls
	}
	l.told = next
	return append(calls, Call{Kind: k})
}
