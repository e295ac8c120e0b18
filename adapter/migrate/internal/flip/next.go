package flip

import (
	"slices"
	"time"
)

// Next says what the owner has to do now.
func (n *Node) Next(now time.Time) (do Do) {
	switch n.phase {
	case Asking:
		n.nextAsking(&do, now)
	case Both:
		n.nextBoth(&do, now)
	case Pausing:
		n.nextPausing(&do, now)
	case Flipped:
		if !n.noted && !now.Before(n.readAt) {
			do.Note = true
			n.readAt = now.Add(n.time.Beat)
		}
		n.beat(&do, now, 5*n.time.Beat)
	}
	do.Wake = now.Add(n.time.Beat / 4)
	return do
}

func (n *Node) nextAsking(do *Do, now time.Time) {
	switch {
	case now.Before(n.readAt):
	case !n.fresh:
		do.Read = true
	case n.heard:
		do.Append = &Entry{Kind: Join, Attempt: n.next, Node: n.joinName()}
		do.Read = true
		n.fresh = false
	}
}

func (n *Node) nextBoth(do *Do, now time.Time) {
	n.beat(do, now, n.time.Beat)
	if n.alone {
		return
	}
	if now.Sub(n.echo) > n.time.Lease {
		n.incarnation++
		n.enter(Asking, now)
		return
	}
	if n.object != 0 {
		do.Append = &Entry{Kind: Abort, Attempt: n.object, Node: n.id}
		n.object = 0
		return
	}
	switch {
	case n.disagree(now) != "":
		n.agreed, n.wanted = time.Time{}, false
	case n.agreed.IsZero():
		n.agreed = now
	case now.Sub(n.agreed) >= n.settle(len(n.live(now))) && n.stranger(now) == "" && !now.Before(n.readAt):
		n.wanted, do.Read = true, true
		n.readAt = now.Add(n.time.Beat)
	}
}

func (n *Node) nextPausing(do *Do, now time.Time) {
	if n.idle && n.ready && !n.paused {
		n.paused, n.announce = true, true
	}
	n.beat(do, now, n.time.Beat/4)
	all := n.members != nil && n.paused && !slices.ContainsFunc(n.members, func(id string) bool {
		p := n.peers[id]
		return id != n.id && (p == nil || p.Paused != n.attempt)
	})
	late := now.Sub(n.since) > n.time.Patience || n.members != nil && now.Sub(n.since) > n.time.Attempt
	switch {
	case now.Before(n.readAt) && !(all && !n.asked):
	case !n.asked && all:
		do.Append = &Entry{Kind: Commit, Attempt: n.attempt, Node: n.id}
		do.Read, n.asked = true, true
	case !n.asked && late:
		do.Append = &Entry{Kind: Abort, Attempt: n.attempt, Node: n.id}
		do.Read, n.asked = true, true
	default:
		do.Read = true
	}
}

// beat announces the hub when it is time.
func (n *Node) beat(do *Do, now time.Time, every time.Duration) {
	if !n.announce && now.Before(n.beatAt) {
		return
	}
	n.announce, n.beatAt = false, now.Add(every)
	a := &Announcement{ID: n.id, Phase: n.phase, Ready: n.ready && !n.hold && !n.alone}
	if n.phase == Pausing {
		if n.paused {
			a.Paused = n.attempt
		}
		if n.members != nil {
			a.Pause, a.Members = n.attempt, n.members
		}
	}
	do.Announce = a
	do.Probe = n.phase == Both
}
