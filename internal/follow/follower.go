package follow

import (
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/sequence"
)

const (
	// PageMessages and PageBytes bound a page that is read to catch up.
	PageMessages = 2048
	PageBytes    = 2 << 20

	// maxHeld bounds what is held while the history is read, in bytes. Frames
	// beyond that are dropped, and read from the history.
	maxHeld = 4 << 20

	// drainFrames is how many held frames go into the log at a time.
	drainFrames = 64

	// compareEvery is how often the history is read because of frames that
	// contradict the place where the log is in it.
	compareEvery = time.Second
)

// A Follower follows the history of one room. See Init.
type Follower[B any] struct {
	numbers    *sequence.Tracker
	doubts     *doubts // nil: there were none
	generation int     // grows when the room is unsubscribed: readers stop then
	following[B]
}

// A following is what is known while the room is subscribed.
type following[B any] struct {
	state State
	link  link
	next  next
	// lost: a frame was dropped that the history may not have. An Unknown gap is
	// due.
	lost bool
	// impatient: held frames that the history does not have are delivered.
	impatient bool

	pos    adapter.Position    // of the last message in the log
	began  adapter.Position    // pos when the room was subscribed: members miss nothing from before
	before []adapter.PastEpoch // as the last page had it
	// witnessed is the epoch in which the reading began. If the link has not been
	// broken since, everything that was published in it has arrived.
	witnessed uint64
	// trimmed is the number of messages that were reported missing by their
	// positions, and that no publisher's numbers have shown yet.
	trimmed uint64
	err     error // why the last reading was refused

	pending []Frame[B] // held
	old     int        // of pending: they were there when the reading began
	held    int        // bytes in pending
}

// doubts are about frames that contradict the history.
type doubts struct {
	patience
	beside     adapter.Position // of the last one that was delivered nevertheless
	comparedAt time.Time        // when the history was last read because of a frame from before pos
}

// Init makes f ready for use. Numbers are those of the room's publishers; the
// owner begins their runs when the room is subscribed.
func (f *Follower[B]) Init(numbers *sequence.Tracker) { f.numbers = numbers }

// State returns the state of the room.
func (f *Follower[B]) State() State { return f.state }

// Position returns the position of the last message in the log.
func (f *Follower[B]) Position() adapter.Position { return f.pos }

// Err returns why the last reading was refused. It is nil while there is one.
func (f *Follower[B]) Err() error { return f.err }

// Known reports whether the place of the log in the history is known.
func (f *Follower[B]) Known() bool { return f.state > Opening }

// Reading reports whether the history is being read, or is about to be.
func (f *Follower[B]) Reading() bool {
	return f.state == Opening || f.state == CatchingUp || f.state == Stalled || f.state == Retrying
}

// CatchesUp reports whether the log is catching up with the history.
func (f *Follower[B]) CatchesUp() bool { return f.Reading() && f.state != Stalled }

// Follows reports whether what is published from now on goes into the log, or
// is reported missing there.
func (f *Follower[B]) Follows() bool {
	return f.state == Live || f.state == Blind || f.state == Stalled && f.next == nothing
}

// Unreadable reports whether the history could not be read the last time.
func (f *Follower[B]) Unreadable() bool { return f.state == Blind || f.state == Retrying }

// Generation returns what a reader begins with.
func (f *Follower[B]) Generation() int { return f.generation }

// Current reports whether a reader that began in a generation is to continue.
// The reader asks each time it has taken the lock.
func (f *Follower[B]) Current(generation int) bool { return f.generation == generation }

// Subscribed says that the room is subscribed. The head of the history is to be
// read, unless it is known.
func (f *Follower[B]) Subscribed() Read {
	if f.state != Off {
		return Read{}
	}
	return f.Read()
}

// Unsubscribed says that the subscription has ended.
func (f *Follower[B]) Unsubscribed() {
	f.generation++
	f.following = following[B]{}
	if f.doubts != nil {
		f.doubts.comparedAt = time.Time{}
	}
}

// Interrupted says that frames may be missing from here on. Unclean means that
// earlier frames may be missing, too: the old home may have taken frames that
// never arrive.
func (f *Follower[B]) Interrupted(unclean bool) { f.link = f.link.interrupted(unclean) }

// Restored says that the subscription is restored.
func (f *Follower[B]) Restored() Read {
	f.link = f.link.restored()
	return f.Read()
}

// Read asks for a reading that begins after this.
func (f *Follower[B]) Read() Read {
	if f.Reading() {
		f.next = max(f.next, readAgain)
		return Read{}
	}
	f.begin()
	return Read{Due: true}
}

// begin begins a series of readings.
func (f *Follower[B]) begin() {
	f.err, f.witnessed, f.old = nil, f.pos.Epoch, 0
	switch f.state {
	case Off:
		f.state = Opening
	case Blind:
		f.state = Retrying
	default:
		f.state = CatchingUp
	}
}

// Receive takes a frame that has arrived. If it is the next one, placed is true
// and a is to be appended. Otherwise the frame is held.
func (f *Follower[B]) Receive(b *Frame[B], now time.Time) (a Append, placed bool, read Read) {
	if !f.Reading() || f.state == Stalled && !b.At.IsZero() {
		if a, placed = f.place(b, now, true); placed {
			return a, true, Read{}
		}
		if !f.Reading() {
			read = Read{Due: true, After: f.pause(now)}
			f.begin()
			if read.After > 0 && f.state == CatchingUp {
				f.state = Stalled
			}
		}
	}
	f.hold(b)
	return a, false, read
}

// hold keeps a frame until the history has been read.
func (f *Follower[B]) hold(b *Frame[B]) {
	if f.held += b.Size; f.held > maxHeld {
		f.next = overflown
	}
	f.pending = append(f.pending, *b)
	if f.next == overflown {
		// The history has the dropped frames, except those without a position.
		f.lost = f.lost || f.state == Stalled ||
			slices.ContainsFunc(f.pending, func(b Frame[B]) bool { return b.At.IsZero() })
		f.pending, f.held, f.old = nil, 0, 0
	}
}

// Query says what to read: the head, with a Limit of 0, or what comes after the
// last position. It is not ok if the room was unsubscribed since the
// generation.
func (f *Follower[B]) Query(generation int) (q adapter.Query, ok bool) {
	if !f.Current(generation) {
		return q, false
	}
	if f.state == Stalled {
		f.state = CatchingUp
	}
	if f.next == overflown {
		f.pending, f.held = nil, 0
	}
	f.next, f.old = nothing, len(f.pending)
	q.Since = f.pos
	if f.Known() {
		q.Limit, q.Bytes = PageMessages, PageBytes
	}
	return q, true
}

// NoProgress says that a reading has brought nothing, though the history
// announced more. It returns how long to wait before the next one, or that the
// history is to count as refused.
func (f *Follower[B]) NoProgress(now time.Time) (wait time.Duration, refused bool) {
	return f.doubt().noProgress(now)
}

// Refused ends a series of readings because the history cannot be read. The
// room continues with the held frames, like a room without a history.
func (f *Follower[B]) Refused(err error, now time.Time) []Held[B] {
	f.err = err
	pending, known := f.pending, f.Known()
	f.pending, f.held, f.next, f.impatient = nil, 0, nothing, false
	if !known {
		f.state = Off
		return nil
	}
	f.numbers.BeginRun(now)
	held := make([]Held[B], 1, len(pending)+1)
	held[0].Append = f.lose()
	held[0].restart(f.pos)
	for i := range pending {
		b := &pending[i]
		a, placed := f.place(b, now, true)
		if !placed { // something is missing before this frame, too
			held = append(held, Held[B]{Append: f.lose()})
			a, _ = f.place(b, now, true)
		}
		held = append(held, Held[B]{a, *b})
	}
	return held
}

// lose reports that messages may be missing. The next frame is taken as it
// comes.
func (f *Follower[B]) lose() Append {
	f.state = Blind
	return Append{Gap: roomlog.Gap{Unknown: true}}
}

// Fallback takes a frame of this hub's own that could not be published, for the
// members of this hub. If it arrives after all, its numbers show that members
// have had it.
func (f *Follower[B]) Fallback(b *Frame[B]) Append {
	v := f.numbers.AcceptBeside(&b.Header, &f.trimmed)
	a := Append{Messages: true, Skip: v.Skip, Sender: v.Sender}
	f.count(&a, &v)
	return a
}

func (f *Follower[B]) doubt() *doubts {
	if f.doubts == nil {
		f.doubts = new(doubts)
	}
	return f.doubts
}

// pause says how long to wait before a reading that a frame asks for.
func (f *Follower[B]) pause(now time.Time) time.Duration {
	if f.doubts == nil {
		return 0
	}
	return f.doubts.pause(now)
}
