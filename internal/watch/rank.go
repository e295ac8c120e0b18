package watch

import (
	"cmp"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
)

// This file ranks hubs as watchers of others.

// count adds a hub to the ranking of watchers, or removes it.
func (w *Watch) count(h *hub, by int) {
	w.alive += by
	w.digest ^= sum(h)
	w.stale = true
	h.above = 0
	for _, t := range w.hubs {
		if t == h || t.state == Gone {
			continue
		}
		if score(h.id, t.id) > score(w.self.id, t.id) {
			t.above += by
		}
		if score(t.id, h.id) > score(w.self.id, h.id) {
			h.above++
		}
	}
}

// watches reports whether this hub is among those that watch h.
func (w *Watch) watches(h *hub) bool { return h.state != Gone && h.above < w.params.Watchers }

// rewatch brings the list of watched hubs up to date.
func (w *Watch) rewatch() {
	if !w.stale {
		return
	}
	w.stale = false
	old := w.watched
	w.watched = nil
	for _, h := range w.hubs {
		if w.watches(h) {
			w.watched = append(w.watched, h)
		}
	}
	slices.SortFunc(w.watched, func(a, b *hub) int { return cmp.Compare(a.id, b.id) })
	for _, h := range old { // evidence from an earlier watch does not count
		if !slices.Contains(w.watched, h) && h.state != Gone {
			h.state, h.waiting, h.absent = Alive, time.Time{}, time.Time{}
		}
	}
}

// score ranks hub w as a watcher of hub t.
func score(w, t uint64) uint64 { return control.Mix(w ^ control.Mix(t)) }

// sum returns the part of a hub in the digest of a list.
func sum(h *hub) uint64 { return control.Mix(h.id + control.Mix(h.incarnation+1)) }
