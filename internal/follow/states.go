package follow

// A State says how much of its history a room has, and what it does to get the
// rest.
type State uint8

const (
	// Off: nothing is known, and the history is not read. The room is not
	// subscribed, or the first reading was refused.
	Off State = iota
	// Opening: the head of the history is being read. That is the place where
	// the log begins.
	Opening
	// Live: the log has all that was published, as far as anybody can tell, and
	// the next frame goes into it as it arrives.
	Live
	// CatchingUp: the log lacks something, and the history is being read, or is
	// about to be. What arrives is held.
	CatchingUp
	// Stalled: the log has all that the history has, but a held frame has a
	// place that the history lacks. The history is read again after a pause.
	// Until then other frames that have positions go into the log as in Live.
	Stalled
	// Blind: the history cannot be read, and members were told that messages
	// may be missing. The next frame that has a position is taken as it comes.
	Blind
	// Retrying: Blind, and the history is being read again. What arrives is
	// held.
	Retrying
)

var stateNames = [...]string{"Off", "Opening", "Live", "CatchingUp", "Stalled", "Blind", "Retrying"}

func (s State) String() string { return stateNames[s] }

// A link is the state of the subscription.
type link uint8

const (
	sound  link = iota // it is up, and the log has what came over it
	moving             // it was interrupted in good order: what the old home took has come
	broken             // it was interrupted: the old home may have taken frames that never arrive
	mended             // it was broken and is up again, and the history has not been read since
)

// interrupted returns the link after an interruption.
func (l link) interrupted(unclean bool) link {
	if unclean || l.unclean() {
		return broken
	}
	return moving
}

// restored returns the link after the subscription was restored.
func (l link) restored() link {
	if l.unclean() {
		return mended
	}
	return sound
}

// caughtUp returns the link after the history was read.
func (l link) caughtUp() link {
	if l == mended {
		return sound
	}
	return l
}

// unclean reports whether a home may have taken frames that never arrived.
func (l link) unclean() bool { return l == broken || l == mended }

// A next says whether another reading is to follow the one under way.
type next uint8

const (
	nothing   next = iota
	readAgain      // another one, since something has happened meanwhile
	overflown      // another one, since too much was held, and was dropped
)

// A Step is what follows when held frames have gone into the log.
type Step uint8

const (
	Done  Step = iota // the log lacks nothing: it is Live
	Again             // the history is to be read again, after a wait
	More              // Drain is to be called again
)
