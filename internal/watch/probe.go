package watch

import (
	"time"

	"github.com/fanoutgo/fanout/internal/control"
)

// An Outcome is what became of a probe that was published.
type Outcome uint8

const (
	// Failed means that the probe could not be published.
	Failed Outcome = iota
	// Nobody means that the backend knows that nobody got it.
	Nobody
	// Somebody means that somebody got it, or that the backend cannot tell.
	Somebody
)

// Tick sends the probes that are due, and decides which watched hubs are
// suspected or gone.
func (w *Watch) Tick(now time.Time) Actions {
	if late := now.Sub(w.next); late > w.params.Tick && !w.next.IsZero() {
		w.shift(late)
	}
	w.forget(now)
	w.rewatch()
	if w.deaf(now) {
		// The silence of others means nothing while this hub did not run.
		for _, h := range w.watched {
			if !h.waiting.IsZero() {
				h.waiting = h.waiting.Add(now.Sub(w.last))
			}
		}
	}
	for _, h := range w.watched {
		w.judge(h, now)
	}
	w.rewatch()
	for _, h := range w.watched {
		w.probe(h, now)
	}
	w.last, w.next = now, time.Time{}
	if len(w.watched) > 0 {
		w.probe(&w.self, now)
		w.next = now.Add(w.params.Tick)
	} else if len(w.graves) > 0 {
		w.next = w.graves[0].goneAt.Add(w.params.Grave)
	}
	return w.take()
}

// shift moves deadlines by the time in which the hub did not run.
func (w *Watch) shift(by time.Duration) {
	move := func(t *time.Time) {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
	for _, h := range w.watched {
		move(&h.waiting)
		move(&h.absent)
	}
	move(&w.self.waiting)
	w.last = w.last.Add(by)
}

// forget forgets hubs that are long gone.
func (w *Watch) forget(now time.Time) {
	for len(w.graves) > 0 && now.Sub(w.graves[0].goneAt) >= w.params.Grave {
		delete(w.hubs, w.graves[0].id)
		w.graves[0] = nil
		w.graves = w.graves[1:]
	}
}

// deaf reports whether this hub does not hear itself.
func (w *Watch) deaf(now time.Time) bool {
	return !w.self.waiting.IsZero() && now.Sub(w.self.waiting) > w.params.Tick
}

// judge decides, by the outcome of its probes, whether a hub is suspected or
// gone.
func (w *Watch) judge(h *hub, now time.Time) {
	silent := time.Duration(0)
	if !h.waiting.IsZero() {
		silent = now.Sub(h.waiting)
	}
	switch {
	case h.state == Alive && (!h.absent.IsZero() || silent >= w.params.AckTimeout):
		h.state = Suspected
		h.probeAt = now
		w.say(&control.Verdict{Hub: h.id, Incarnation: h.incarnation})
	case h.state == Suspected && (silent >= w.params.Silent ||
		!h.absent.IsZero() && now.Sub(h.absent) >= w.params.Absent):
		w.say(&control.Verdict{Gone: true, Hub: h.id, Incarnation: h.incarnation})
		w.bury(h, now)
		w.out.Died = append(w.out.Died, h.id)
	case h.state == Suspected && h.absent.IsZero() && silent < w.params.AckTimeout:
		h.state = Alive // somebody listens there again
	}
}

// probe probes a hub if that is due.
func (w *Watch) probe(h *hub, now time.Time) {
	if now.Before(h.probeAt) {
		return
	}
	every := w.params.Interval
	if h.state == Suspected {
		every = w.params.Suspicious
	}
	h.probeAt, h.sent = now.Add(every), now
	w.number++
	w.out.Probe = append(w.out.Probe, Message{h.id, &control.Probe{Number: w.number, Hubs: uint64(w.alive), Digest: w.digest}})
}

// Probed notes the outcome of a probe that was sent to a hub.
func (w *Watch) Probed(id uint64, o Outcome, now time.Time) {
	h := w.find(id)
	if h == nil || h.state == Gone {
		return
	}
	switch o {
	case Nobody:
		if h.absent.IsZero() {
			h.absent = now
		}
	case Somebody:
		h.absent = time.Time{}
		if h.waiting.IsZero() && h.heard.Before(h.sent) { // the ack may have been faster
			h.waiting = now
		}
	case Failed: // evidence must not be interrupted
		h.absent, h.waiting = time.Time{}, time.Time{}
		if h == &w.self {
			h.waiting = w.last // it does not hear itself
		}
	}
}

// Receive takes a probe or an ack.
func (w *Watch) Receive(from uint64, m *control.Probe, now time.Time) Actions {
	known := w.hear(from, now)
	h := w.find(from)
	switch {
	case from == w.self.id:
	case !m.Ack && h == nil:
		w.sendRoster(from, true) // it is unknown here: ask who is there
	case !m.Ack && known:
		w.tell(from, &control.Probe{Ack: true, Number: m.Number, Hubs: uint64(w.alive), Digest: w.digest})
	case m.Ack && known:
		w.compare(h, m)
	}
	return w.take()
}

// compare sends a hub the list if the hub's own list differs, and already did
// so before: a first difference may be due to news that is under way.
func (w *Watch) compare(h *hub, m *control.Probe) {
	differs := m.Hubs != uint64(w.alive) || m.Digest != w.digest
	if differs && h.differs {
		w.sendRoster(h.id, true)
		differs = false
	}
	h.differs = differs
}

// sendRoster sends the whole list to a hub.
func (w *Watch) sendRoster(to uint64, answer bool) {
	list := []control.Known{known(&w.self)}
	for _, h := range w.hubs {
		if h.id != to || h.state == Gone {
			list = append(list, known(h))
		}
	}
	for len(list) > rosterPage {
		w.tell(to, &control.Roster{Hubs: list[:rosterPage]})
		list = list[rosterPage:]
	}
	w.tell(to, &control.Roster{Hubs: list, Answer: answer})
}

func known(h *hub) control.Known {
	return control.Known{Hub: h.id, Incarnation: h.incarnation, Since: h.since, Gone: h.state == Gone}
}

// Roster takes the list of another hub.
func (w *Watch) Roster(from uint64, m *control.Roster, now time.Time) Actions {
	for _, k := range m.Hubs {
		switch {
		case k.Hub == w.self.id:
			if k.Gone {
				w.refute(from, k.Incarnation, true)
			}
		case k.Gone:
			w.end(k.Hub, k.Incarnation, now)
		default:
			w.enter(k, now)
		}
	}
	w.hear(from, now)
	if m.Answer {
		w.sendRoster(from, false)
	}
	return w.take()
}
