package rollout

import "time"

// complete reports whether all adapters have answered the round.
func (m *Machine) complete(now time.Time) bool {
	wait := m.patience
	if m.self.Stage <= Steady {
		wait = m.start
	}
	if m.round.asks == nil || m.round.over {
		return false
	}
	reached := false
	for p, a := range m.round.asks {
		switch {
		case !a.counted:
			return false
		case a.failed:
			if now.Sub(m.failing[p]) < wait {
				return false
			}
			continue
		case a.receivers < 0:
			if now.Sub(m.since) < wait && !(m.settled && m.allAnswered()) {
				return false
			}
		case len(a.heard) < a.receivers && !m.without(p, a, now):
			return false
		}
		reached = true
	}
	return reached && (m.self.Stage <= Steady || m.allSpoke(now))
}

// without reports whether to go on although some hubs that the backend counts
// have not answered: none of them is known, and they were missing before or
// have been waited for long enough. A backend counts a dead hub until it
// notices that it is dead.
func (m *Machine) without(partition string, a *ask, now time.Time) bool {
	known := m.allAnswered
	if m.self.Stage <= Steady {
		known = func() bool { return m.allSpoke(now) }
	}
	return known() && (a.missing() <= m.absent[partition] || now.Sub(m.began) >= m.patience)
}

// missing returns the number of hubs that are counted and have not answered.
func (a *ask) missing() int { return max(0, a.receivers-len(a.heard)) }

// allSpoke reports whether each known peer has answered somewhere or has been
// silent for long enough. A peer whose link is broken is not counted, and
// publishes that it has begun may still arrive.
func (m *Machine) allSpoke(now time.Time) bool {
	for hub, p := range m.peers {
		silent := now.Sub(m.since)
		if p.at.After(m.since) {
			silent = now.Sub(p.at)
		}
		if !m.answered(hub) && silent < m.patience {
			return false
		}
	}
	return true
}

func (m *Machine) answered(hub string) bool {
	for _, a := range m.round.asks {
		if a.heard[hub] {
			return true
		}
	}
	return false
}

// allAnswered reports whether each peer that is known has answered somewhere.
func (m *Machine) allAnswered() bool {
	for hub := range m.peers {
		if !m.answered(hub) {
			return false
		}
	}
	return true
}
