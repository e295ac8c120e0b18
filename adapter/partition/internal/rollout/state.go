package rollout

import "slices"

// A Stage is how far an adapter is with a change.
type Stage uint8

const (
	// Learning: the adapter has started, and does not know yet which set is
	// current.
	Learning Stage = iota
	// Steady: there is no change.
	Steady
	// Opening: another set is wanted. What moves is being subscribed at its new
	// home as well.
	Opening
	// Ready: what moves is subscribed at both homes, and published to the old.
	Ready
	// Drained: publishes to what moves are held, and none is under way.
	Drained
	// Flushed: the same, and what all others had published to the old homes
	// before they were drained has arrived here, as far as the backend keeps the
	// order.
	Flushed
	// Switched: what has moved is published to the new home, and subscribed at
	// both. The epoch and the names are those of the new set.
	Switched
)

var stageNames = [...]string{"learning", "steady", "opening", "ready", "drained", "flushed", "switched"}

func (s Stage) String() string {
	if int(s) < len(stageNames) {
		return stageNames[s]
	}
	return "unknown"
}

// A State is what adapters tell each other. Names are sorted.
type State struct {
	Hub string `json:"hub"`
	// Era is when the first adapter started, in ms since 1970; 0: not known, as an
	// earlier release does not say it. Epochs begin with 1 in each era. Rooms note
	// both where they move to, and such notes outlive the adapters.
	Era   uint64   `json:"era,omitempty"`
	Epoch uint64   `json:"epoch"` // of the current set, which grows with each change; 0: not known
	Names []string `json:"names"` // of the current set
	Old   []string `json:"old,omitempty"`
	Want  []string `json:"want"` // the set that is to be
	Stage Stage    `json:"stage"`
	Done  bool     `json:"done,omitempty"` // the work of the stage is done
}

// progress returns the stage of a peer that changes from an epoch to the set
// want, or 0 if it does not make that change.
func (s *State) progress(from uint64, want []string) Stage {
	switch {
	case s.Epoch > from+1, s.Epoch == from+1 && slices.Equal(s.Names, want):
		return Switched
	case s.Epoch != from || s.Stage < Opening || !slices.Equal(s.Want, want):
		return 0
	case s.Stage == Drained && !s.Done:
		return Ready
	default:
		return s.Stage
	}
}

// before reports whether the current set of t takes precedence over that of s:
// it is newer. Of two with the same epoch, that of the older era does, since
// an adapter that starts while it can reach nobody begins an era; then the one
// that sorts earlier.
func (s *State) before(t *State) bool {
	if s.Epoch != t.Epoch {
		return s.Epoch < t.Epoch
	}
	if s.Era != t.Era && s.Era > 0 && t.Era > 0 {
		return s.Era > t.Era
	}
	return slices.Compare(s.Names, t.Names) > 0
}
