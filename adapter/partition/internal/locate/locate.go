// Package locate decides, for a room of package partition, which partition has
// its history, and what is to be done before the room can be used at its home.
//
// Only the history itself grows, so the partition whose copy ends latest has
// it. Others may have copies that were left behind when the room moved, or that
// were begun and not completed:
//
//	p1  ▒▒▒▒▒▒▒▒▒▒▒▒        left behind: its record says that p2 has the history
//	p2  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  the history
//	p3  ▒▒▒▒▒▒              home: a hub has begun to copy it, and not finished
//
// The caller reads what the home has. [Here] says whether that decides it; if
// not, the caller reads what the others have, and [Decide] does. Both have no
// lock, clock, goroutine or I/O. They look at nothing but their arguments.
package locate

import "github.com/fanoutgo/fanout/adapter"

// A Site is what a partition has of a room's history.
type Site struct {
	Head    adapter.Position // of the last message, as hubs know it; zero if there was none
	Left    string           // the partition to which the history has gone from here; "" if none
	Partial bool             // it is a copy that is not complete
	Expired bool             // no message is kept: it may be the rest of such a copy
}

// before reports whether t has more of the history than s.
func (s *Site) before(t *Site) bool {
	switch {
	case s.Expired && !t.Expired && s.Head.Offset < t.Head.Offset:
		return true
	case t.Expired && !s.Expired && t.Head.Offset < s.Head.Offset:
		return false
	case s.Head == t.Head:
		return !s.Head.IsZero() && s.Left != "" && t.Left == ""
	}
	return s.Head.Before(t.Head)
}

// An Action is what is to be done before the room is used at its home.
type Action uint8

const (
	// Use: the history is at its home, or there is none. Nothing is to be done.
	Use Action = iota
	// Ask: what the home has does not decide it, and the others are to be read.
	Ask
	// Wait: [Decision.Unread] may have the history, and cannot be read.
	Wait
	// Copy: [Decision.From] has the history, and it is copied to the home.
	Copy
	// Anew: the partition that has the history is gone. It goes on at the home,
	// after what that has, with positions that come after all that were given out.
	Anew
	// Note: the history is at its home, or there is none, and the record does not
	// say so. It is noted, so that the others need not be read again.
	Note
)

func (a Action) String() string {
	return [...]string{"use", "ask", "wait", "copy", "anew", "note"}[a]
}

// Here decides by what the home has alone: Use or Ask. The done parameter says
// that the record there is of the current set of partitions, and changing that
// hubs are changing to that set from another.
func Here(home *Site, done, changing bool) Action {
	if done || !changing && !home.Head.IsZero() && !home.Partial && home.Left == "" {
		return Use
	}
	return Ask
}

// A Question is what the decision depends on.
type Question struct {
	Home   Site
	Others []Site
	// Must says that the room moved in the last change of the set, and that its
	// old home is among the others.
	Must bool
	// Unread says of partitions, by their names, why they cannot be read. They are
	// not among the others.
	Unread map[string]error
}

// A Decision is what is to be done.
type Decision struct {
	Action Action
	From   int    // of Copy: the index of the site that has the history
	Stale  bool   // of Copy: the history went on elsewhere, and that is lost
	Unread string // of Wait: the partition that cannot be read
}

// Decide decides by what all partitions have.
func Decide(q *Question) Decision {
	home, from, best := &q.Home, -1, Site{}
	for i := range q.Others {
		if s := &q.Others[i]; !s.Partial && best.before(s) {
			from, best = i, *s
		}
	}
	behind := home.before(&best)
	switch {
	case !behind && q.Unread[home.Left] != nil:
		return Decision{Action: Wait, Unread: home.Left}
	case behind, home.Partial && from >= 0 && home.Head == best.Head:
		// If the history has gone on from there, the partition that had it has
		// lost it, unless it is the home, and the copy is not complete.
		stale := best.Left != "" && !home.Partial
		if stale && q.Unread[best.Left] != nil {
			return Decision{Action: Wait, Unread: best.Left}
		}
		return Decision{Action: Copy, From: from, Stale: stale}
	case home.Partial, home.Left != "" && best.before(home):
		return Decision{Action: Anew}
	case q.Must, home.Left != "":
		return Decision{Action: Note}
	}
	return Decision{Action: Use}
}
