package ask

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/stretchr/testify/require"
)

// A world is an asker and hubs that answer, with messages that get lost.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	counts bool
	loss   int // in percent
	later  []delayed
	ways   map[string]time.Time
	hubs   map[uint64]*answerer
	q      *Question
	credit uint64

	got      map[uint64][]uint64 // pages by hub
	consumed map[uint64]uint64
	most     uint64 // pages of a hub that were not consumed
}

type delayed struct {
	at  time.Time
	run func()
}

type answerer struct {
	world    *world
	id       uint64
	dead     bool
	channels []uint64
	total    uint64 // pages
	commands Commands
	pages    *Pages
	runs     int
}

// after runs something a little later. What goes one way stays in order.
func (w *world) after(way string, run func()) {
	at := w.now.Add(time.Duration(1+w.rng.IntN(5)) * time.Millisecond)
	if at.Before(w.ways[way]) {
		at = w.ways[way]
	}
	w.ways[way] = at
	w.later = append(w.later, delayed{at, run})
}

func (w *world) lost() bool { return w.rng.IntN(100) < w.loss }

func (w *world) do(a Actions) {
	for _, c := range a.Send {
		n := 0
		for _, h := range w.hubs {
			if h.dead || !slices.Contains(h.channels, uint64(c)) {
				continue
			}
			n++
			if !w.lost() {
				w.after(fmt.Sprint("channel ", c, h.id), func() { h.arrive(uint64(c), a.Attempt) })
			}
		}
		if !w.counts {
			n = -1
		}
		w.after("replies", func() { w.do(w.q.Sent(c, a.Attempt, n)) })
	}
	if a.Roll {
		for _, h := range w.hubs {
			if !h.dead && !w.lost() {
				w.after("rolls", func() { w.q.Rolled(h.id, append(slices.Clone(h.channels), 1<<40), w.now) })
			}
		}
	}
	for _, c := range a.Credit {
		h := w.hubs[c.Hub]
		if !h.dead && !w.lost() {
			w.after(fmt.Sprint("to ", h.id), func() { h.credited(&control.Credit{From: c.From, Upto: c.Upto}) })
		}
	}
}

func (h *answerer) arrive(which, attempt uint64) {
	w := h.world
	key := Key{1, 7}
	status := control.StatusWorking
	switch h.commands.Arrive(key, which, h.channels, time.Second, w.now) {
	case Wait:
		return
	case Run:
		h.runs++
		h.pages = NewPages(w.credit)
	case Again:
		status = control.StatusWorking
	}
	h.send(&control.Answer{Attempt: attempt, Status: status, Covers: h.commands.Copies(key)})
	h.fill(attempt)
}

func (h *answerer) fill(attempt uint64) {
	for {
		n, ok := h.pages.Next()
		if !ok {
			return
		}
		a := &control.Answer{Attempt: attempt, Status: control.StatusMore, Page: n, Covers: h.commands.Copies(Key{1, 7})}
		if n == h.total-1 {
			a.Status = control.StatusLast
			h.commands.Finished(Key{1, 7}, nil)
		}
		h.pages.Add(binary.AppendUvarint(nil, n), a.Status.Final())
		h.send(a)
	}
}

func (h *answerer) credited(c *control.Credit) {
	if h.pages == nil {
		return
	}
	again, _ := h.pages.Credit(c)
	for _, p := range again {
		n, _ := binary.Uvarint(p)
		a := &control.Answer{Status: control.StatusMore, Page: n}
		if n == h.total-1 {
			a.Status = control.StatusLast
		}
		h.send(a)
	}
	h.fill(0)
}

func (h *answerer) send(a *control.Answer) {
	w := h.world
	if w.lost() {
		return
	}
	w.after(fmt.Sprint("from ", h.id), func() {
		if w.q.Answer(h.id, a, w.now) {
			w.got[h.id] = append(w.got[h.id], a.Page)
			w.most = max(w.most, uint64(len(w.got[h.id]))-w.consumed[h.id])
		}
	})
}

// run lets time pass until the question is done, or the limit is over.
func (w *world) run(limit time.Duration) (took time.Duration) {
	began := w.now
	for !w.q.Done() && w.now.Sub(began) < limit {
		w.now = w.now.Add(time.Millisecond)
		due := w.later
		w.later = nil
		for _, d := range due {
			if d.at.After(w.now) {
				w.later = append(w.later, d)
			} else {
				d.run()
			}
		}
		if !w.q.Next().After(w.now) {
			w.do(w.q.Tick(w.now))
		}
		for id, pages := range w.got { // the reader is slow
			if uint64(len(pages)) > w.consumed[id] && w.rng.IntN(3) == 0 {
				w.consumed[id]++
				w.do(w.q.Consumed(id, w.consumed[id]))
			}
		}
	}
	return w.now.Sub(began)
}

func newWorld(t *testing.T, seed uint64, hubs, channels int, counts bool, loss int) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 3)), now: time.Unix(1_700_000_000, 0), ways: make(map[string]time.Time), counts: counts, loss: loss,
		hubs: make(map[uint64]*answerer), credit: CreditFor(hubs), got: make(map[uint64][]uint64), consumed: make(map[uint64]uint64),
	}
	var there []Known
	for id := range uint64(hubs) {
		h := &answerer{world: w, id: id + 1, total: 1 + w.rng.Uint64N(20)}
		for c := range uint64(channels) {
			if w.rng.IntN(2) == 0 {
				h.channels = append(h.channels, c)
			}
		}
		w.hubs[h.id] = h
		there = append(there, Known{h.id, w.now})
	}
	w.q = New(channels, w.credit, there)
	return w
}

func TestSimulation(t *testing.T) {
	for seed := range uint64(100) {
		for _, counts := range []bool{true, false} {
			t.Run(fmt.Sprint("seed ", seed, ", counts ", counts), func(t *testing.T) {
				loss := []int{0, 10, 40}[seed%3]
				w := newWorld(t, seed, 1+int(seed%7), 1+int(seed%3), counts, loss)
				w.do(w.q.Start(w.now))
				if seed%5 == 4 {
					w.run(time.Duration(w.rng.IntN(20)) * time.Millisecond)
					dead := w.hubs[1+w.rng.Uint64N(uint64(len(w.hubs)))]
					dead.dead = true
					w.run(3 * time.Second)
					w.do(w.q.Gone(dead.id, w.now))
				}
				took := w.run(2 * time.Minute)
				require.True(t, w.q.Done())
				if loss == 0 {
					require.Less(t, took, time.Second)
				}
				require.LessOrEqual(t, w.most, w.credit)
				for id, h := range w.hubs {
					if h.dead {
						continue
					}
					var want []uint64
					if len(h.channels) > 0 {
						for n := range h.total {
							want = append(want, n)
						}
						require.Equal(t, 1, h.runs, "it runs once")
					}
					require.Equal(t, want, w.got[id], "each page once, in order")
				}
				silent, unknown := w.q.Missing()
				require.Empty(t, silent)
				require.Zero(t, unknown)
			})
		}
	}
}
