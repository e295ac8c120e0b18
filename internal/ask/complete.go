package ask

import (
	"cmp"
	"slices"
)

// This file decides when a question is complete, and which answers are missing.

// complete reports whether all hubs that listen to a channel have been heard.
func (q *Question) complete(c int) bool {
	ch := &q.channels[c]
	switch {
	case !ch.sent:
		return false
	case !ch.counted:
		return q.allRolled(c)
	case q.expects(c):
		return false
	case q.answers(c, ch.attempt) >= ch.receivers:
		return !q.thorough || q.allRolled(c)
	}
	// Answers to this attempt are lost, but all may have answered an earlier
	// one.
	return q.rolling && q.answers(c, 0) >= ch.receivers && q.allRolled(c)
}

// allRolled reports whether all hubs have said whether they listen to a
// channel, and those that do have answered.
func (q *Question) allRolled(c int) bool {
	for _, h := range q.hubs {
		if h.state != Ended && h.known && !h.rolled && h.answered[c] == 0 || q.owes(h, c) {
			return false
		}
	}
	return true
}

// expects reports whether a hub that is expected to answer in a channel has yet
// to do so.
func (q *Question) expects(c int) bool {
	for _, h := range q.hubs {
		if h.expects(c) {
			return true
		}
	}
	return false
}

func (h *hub) expects(c int) bool {
	return h.state != Ended && h.answered[c] == 0 && slices.Contains(h.expected, uint64(c))
}

// answers is the number of hubs that have answered an attempt or a later one.
func (q *Question) answers(c int, attempt uint64) (n int) {
	for _, h := range q.hubs {
		if h.answered[c] > attempt {
			n++
		}
	}
	return n
}

// owes reports whether a hub listens to a channel and has yet to answer.
func (q *Question) owes(h *hub, c int) bool {
	return h.state != Ended && h.listens[c] && h.answered[c] == 0 || h.expects(c)
}

// Done reports whether all answers are here.
func (q *Question) Done() bool {
	for _, h := range q.hubs {
		if h.state == Answering {
			return false
		}
	}
	for c := range q.channels {
		if !q.complete(c) {
			return false
		}
	}
	return true
}

// WaitsOnlyFor reports whether all answers but that of one hub are here, and it
// has not got the question in all channels in which it is expected to.
func (q *Question) WaitsOnlyFor(id uint64) bool {
	h := q.hubs[id]
	if h == nil || h.state != Silent || q.Done() {
		return false
	}
	missed := func(c uint64) bool { return h.arrived[c] == 0 }
	if !slices.ContainsFunc(h.expected, missed) {
		return false
	}
	here := *h
	here.answered, here.listens = slices.Clone(h.answered), slices.Clone(h.listens)
	here.answerHere()
	q.hubs[id] = &here
	defer func() { q.hubs[id] = h }()
	return q.Done()
}

// Here says that a hub, the asking one, has answered without the backend.
func (q *Question) Here(id uint64) { q.hub(id).answerHere() }

// answerHere notes an answer to all copies of the question that have arrived.
// Others have not been counted: the hub's subscription is down there.
func (h *hub) answerHere() {
	h.state, h.expected, h.rolled = Finished, nil, true
	for c, attempt := range h.arrived {
		h.answered[c] = max(h.answered[c], attempt)
		h.listens[c] = h.listens[c] && attempt > 0
	}
}

// Missing returns the hubs that have not answered, or not everything, and since
// when each is silent; and the number of others whose names are not known.
func (q *Question) Missing() (silent []Known, unknown int) {
	if q.Done() {
		return nil, 0
	}
	var asked []Known // may have been asked
	lack := 0
	for c := range q.channels {
		if ch := &q.channels[c]; ch.counted {
			lack = max(lack, ch.receivers-q.answers(c, ch.attempt))
		}
	}
	unsure := 0 // hubs that have answered, and may have been counted as well
	for id, h := range q.hubs {
		owes := false
		for c := range q.channels {
			owes = owes || q.owes(h, c)
		}
		if h.state == Finished && h.next == 0 && slices.Contains(h.arrived, 0) {
			unsure++
		}
		switch k := (Known{id, h.heard}); {
		case h.state == Answering || owes || h.state == Silent && h.known && q.rolling && !h.rolled:
			silent = append(silent, k)
			if h.state == Silent {
				lack--
			}
		case h.state == Silent && h.known && !q.rolling:
			asked = append(asked, k)
		}
	}
	if len(asked)+unsure <= lack { // it can only be these
		silent = append(silent, asked...)
		lack -= len(asked)
	}
	slices.SortFunc(silent, func(a, b Known) int { return cmp.Compare(a.Hub, b.Hub) })
	return silent, max(lack, 0)
}
