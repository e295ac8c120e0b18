// Package life is the life of a room on a hub: whether it is subscribed and
// used, and what becomes of it when nobody uses it.
//
//	        Start              Subscribed
//	Off ───────────▶ Starting ───────────▶ On ─┐
//	 │ ▲                │ failed               │ idle for Options.Linger: Linger
//	 │ └────────────────┴───────── Ended ◀── Ending
//	 │ idle for a while: Forget
//	 ▼
//	Gone
//
// A room is idle while it has no members and no uses. A use is a call that
// works with it. Release reports whether the room has become idle and is to be
// put into a queue. It is in one queue at most, and it stays there when it is
// used again. When its turn has come, Dequeue, Linger or Forget says what
// happens to it.
//
// Nothing here has a lock, clock, goroutine or I/O. The lock of the room guards
// its Life. Times are arguments, in nanoseconds of a clock that nobody sets.
package life

// A State is the state of a room at the adapter.
type State uint8

const (
	// Off: it is not subscribed.
	Off State = iota
	// Starting: somebody subscribes it, and others that need it wait.
	Starting
	// On: it is subscribed. It may be Interrupted.
	On
	// Ending: its subscription is being ended, because it was idle.
	Ending
	// Gone: the hub has forgotten it. It stays so.
	Gone
)

var stateNames = [...]string{"Off", "Starting", "On", "Ending", "Gone"}

func (s State) String() string { return stateNames[s] }

// A Life is that of one room. The zero Life is Off and idle, and in no queue.
type Life struct {
	idleSince     int64
	uses, members int32
	state         State
	interrupted   bool
	queued        bool
}

// State returns the state of the room at the adapter.
func (l *Life) State() State { return l.state }

// Interrupted reports whether the adapter says that frames may be missing.
func (l *Life) Interrupted() bool { return l.interrupted }

// Receives reports whether the room gets all that is published: it is
// subscribed, and not interrupted.
func (l *Life) Receives() bool { return l.state == On && !l.interrupted }

// Start says that the room is being subscribed. It was Off.
func (l *Life) Start() { l.state, l.interrupted = Starting, false }

// Subscribed says how subscribing has ended: the room is On, or Off again.
func (l *Life) Subscribed(ok bool) {
	if l.state = Off; ok {
		l.state = On
	}
}

// Interrupt says that frames may be missing from here on.
func (l *Life) Interrupt() { l.interrupted = true }

// Restore says that the subscription is restored.
func (l *Life) Restore() { l.interrupted = false }

// Ended says that the subscription has ended that was Ending.
func (l *Life) Ended() { l.state, l.interrupted = Off, false }

// Use marks the room as used until Release. It returns false if the room is
// Gone.
func (l *Life) Use() bool {
	if l.state == Gone {
		return false
	}
	l.uses++
	return true
}

// Release ends uses. It reports whether the room has become idle and is to be
// put into a queue: that for Linger if it is not Off, otherwise that for
// Forget.
func (l *Life) Release(uses int, now int64) (queue bool) {
	l.uses -= int32(uses)
	return l.rest(now)
}

// Uses returns the number of uses.
func (l *Life) Uses() int { return int(l.uses) }

// Join counts a member.
func (l *Life) Join() { l.members++ }

// Leave counts a member out. A Release follows.
func (l *Life) Leave() { l.members-- }

// Members returns the number of members.
func (l *Life) Members() int { return int(l.members) }

// rest notes since when the room is idle, if it is. It reports whether the room
// is to be put into a queue.
func (l *Life) rest(now int64) (queue bool) {
	if !l.Idle() {
		return false
	}
	l.idleSince = now
	queue = !l.queued
	l.queued = true
	return queue
}

// Idle reports whether nobody is in the room or works with it.
func (l *Life) Idle() bool { return l.uses == 0 && l.members == 0 }

// IdleSince returns when the room last became idle.
func (l *Life) IdleSince() int64 { return l.idleSince }

// Dequeue is called when the turn of the room has come in its queue. It reports
// whether the room is in use, and so is out of the queue.
func (l *Life) Dequeue() (used bool) {
	if l.Idle() {
		return false
	}
	l.queued = false
	return true
}

// Linger is called when the room has been idle for Options.Linger, and is out
// of that queue. It reports whether the subscription is to be ended: it is
// Ending then, until Ended. Lingered follows.
func (l *Life) Linger() (end bool) {
	if !l.Idle() || l.state != On {
		return false
	}
	l.state = Ending
	return true
}

// Lingered reports whether the room is to be put into the queue for Forget.
func (l *Life) Lingered() (queue bool) {
	l.queued = l.Idle()
	return l.queued
}

// Forget is called when the room has been idle for long enough to be forgotten,
// and is out of that queue. If nobody uses it, and it is Off, it is Gone. If it
// was subscribed since it came into the queue, it is to be put into the one for
// Linger.
func (l *Life) Forget() (queue bool) {
	l.queued = l.Idle() && l.state != Off
	if l.Idle() && l.state == Off {
		l.state = Gone
	}
	return l.queued
}
