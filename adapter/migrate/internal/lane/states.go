package lane

// A State is the state of a channel between the two backends.
type State uint8

const (
	// Old: the hubs have not flipped, as far as is known. What the old backend
	// brings is delivered, and the state of its subscription is that of the
	// channel. The new one has brought nothing.
	Old State = iota

	// Quiet: as in Old, but the hubs have flipped.
	Quiet
	// QuietEnded: as in Quiet, and nothing more comes by the old backend. Its
	// interruptions are ignored.
	QuietEnded
	// QuietHeaded: as in Quiet, and it is known where the history ended at the
	// old backend.
	QuietHeaded

	// Draining: what the old backend brings is delivered, and what the new one
	// brings is held. The owner finds out when the old one has brought
	// everything, and where its history ended.
	Draining
	// DrainingEnded: as in Draining, and nothing more comes by the old backend.
	DrainingEnded
	// DrainingHeaded: as in Draining, and it is known where the history ended
	// at the old backend.
	DrainingHeaded

	// New: what either backend brings is delivered, except for copies, and the
	// state of the subscription at the new backend is that of the channel.
	New
	// Sorting: as in New, but the new backend has brought a frame that may be a
	// copy. It is held, and what comes after it, until that is known.
	Sorting

	states = iota
)

// OldCounts reports whether the state of the subscription at the old backend is
// that of the channel.
func (s State) OldCounts() bool { return s < New }

// drains reports whether the owner has been asked to drain the old backend.
func (s State) drains() bool { return s >= Draining && s < New }

// ended reports whether interruptions of the old backend are ignored.
func (s State) ended() bool { return s == QuietEnded || s == DrainingEnded || !s.OldCounts() }

// headed reports whether it is known where the history ended at the old
// backend.
func (s State) headed() bool { return s == QuietHeaded || s == DrainingHeaded || !s.OldCounts() }

// An event is what changes the state of a channel.
type event uint8

const (
	flipped event = iota // the hubs have flipped
	came                 // the new backend has brought something that is to be held
	broke                // the old backend has reported an interruption
	marked               // a marker has come by the old backend
	headed               // it is known where the history ended at the old backend
	gaveUp               // the owner does not wait for the old backend any longer
	doubted              // the new backend has brought a frame that may be a copy
	sorted               // it is known which frames are copies, or the owner gave up

	events = iota
)

// after returns the state after an event.
func (s State) after(e event) State {
	switch e {
	case flipped:
		if s == Old {
			return Quiet
		}
	case came:
		return s.hold()
	case broke:
		if s != Old && !s.ended() {
			return s.hold().end()
		}
	case marked: // it has no meaning before the hubs have flipped
		if s != Old {
			return s.end()
		}
	case headed:
		if s != Old {
			return s.head()
		}
	case gaveUp:
		if s.OldCounts() {
			return New
		}
	case doubted:
		if s == New {
			return Sorting
		}
	case sorted:
		if s == Sorting {
			return New
		}
	}
	return s
}

// hold returns the state in which what the new backend brings is held.
func (s State) hold() State {
	switch s {
	case Old, Quiet:
		return Draining
	case QuietEnded:
		return DrainingEnded
	case QuietHeaded:
		return DrainingHeaded
	}
	return s
}

// end returns the state when nothing more comes by the old backend.
func (s State) end() State {
	switch s {
	case Quiet:
		return QuietEnded
	case Draining:
		return DrainingEnded
	case QuietHeaded, DrainingHeaded:
		return New
	}
	return s
}

// head returns the state when it is known where the history ended.
func (s State) head() State {
	switch s {
	case Quiet:
		return QuietHeaded
	case Draining:
		return DrainingHeaded
	case QuietEnded, DrainingEnded:
		return New
	}
	return s
}
