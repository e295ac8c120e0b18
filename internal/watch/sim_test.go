package watch

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/stretchr/testify/require"
)

// A world is hubs that watch each other through a backend, in virtual time.
type world struct {
	t      *testing.T
	now    time.Time
	rng    *rand.Rand
	queue  events
	order  int
	nodes  map[uint64]*node
	counts bool // the backend counts receivers
	down   bool // the backend refuses everything
}

type node struct {
	world   *world
	id      uint64
	watch   *Watch
	killed  bool
	paused  bool
	silent  bool // what is said to everyone does not reach it
	offline bool // nobody listens at its inbox, though it runs
	stub    bool // it answers probes, and does nothing else
	held    []func()
	ticking time.Time

	probes, frames int
	died, left     map[uint64]time.Time
	came           int
}

type event struct {
	at    time.Time
	order int
	run   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newWorld(t *testing.T, hubs int, counts bool) *world {
	w := &world{t: t, now: time.Unix(1_700_000_000, 0), rng: rand.New(rand.NewPCG(1, uint64(hubs))), nodes: make(map[uint64]*node), counts: counts}
	for range hubs {
		w.start()
	}
	w.run(3 * time.Second)
	return w
}

func (w *world) start() *node {
	n := &node{world: w, id: w.rng.Uint64(), died: make(map[uint64]time.Time), left: make(map[uint64]time.Time)}
	n.watch = New(n.id, uint64(w.now.UnixMilli()), Default)
	w.nodes[n.id] = n
	n.do(n.watch.Start())
	return n
}

func (w *world) after(d time.Duration, run func()) {
	w.order++
	heap.Push(&w.queue, event{w.now.Add(d), w.order, run})
}

func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.run()
	}
	w.now = end
}

func (w *world) latency() time.Duration { return time.Duration(1+w.rng.IntN(4)) * time.Millisecond }

// later runs what a node does, now or when it goes on.
func (n *node) later(run func()) {
	switch {
	case n.killed:
	case n.paused:
		n.held = append(n.held, run)
	default:
		run()
	}
}

// send publishes to an inbox.
func (n *node) send(to uint64, p control.Payload) Outcome {
	w := n.world
	if w.down {
		return Failed
	}
	n.frames++
	target := w.nodes[to]
	if target == nil || target.killed || target.offline {
		if w.counts {
			return Nobody
		}
		return Somebody
	}
	raw := p.Append(nil)
	w.after(w.latency(), func() { target.later(func() { target.receive(n.id, raw) }) })
	return Somebody
}

func (n *node) receive(from uint64, raw []byte) {
	w := n.world
	p, err := control.Decode(raw)
	require.NoError(w.t, err)
	if n.stub {
		if p, ok := p.(*control.Probe); ok {
			n.send(from, &control.Probe{Ack: true, Number: p.Number, Hubs: p.Hubs, Digest: p.Digest})
		}
		return
	}
	switch p := p.(type) {
	case *control.Probe:
		n.do(n.watch.Receive(from, p, w.now))
	case *control.Roster:
		n.do(n.watch.Roster(from, p, w.now))
	case *control.Hello:
		n.do(n.watch.Hello(from, p, w.now))
	case *control.Verdict:
		n.do(n.watch.Verdict(from, p, w.now))
		n.do(n.watch.Heard(from, w.now))
	}
}

func (n *node) do(a Actions) {
	w := n.world
	for _, m := range a.Probe {
		n.probes++
		o := n.send(m.Hub, m.Payload)
		w.after(w.latency(), func() { n.later(func() { n.watch.Probed(m.Hub, o, w.now) }) })
	}
	for _, m := range a.Tell {
		n.send(m.Hub, m.Payload)
	}
	for _, p := range a.Say {
		if w.down {
			continue
		}
		n.frames++
		raw := p.Append(nil)
		for _, id := range w.ids() {
			if target := w.nodes[id]; !target.silent {
				w.after(w.latency(), func() { target.later(func() { target.receive(n.id, raw) }) })
			}
		}
	}
	n.came += len(a.Came)
	for _, id := range a.Died {
		n.died[id] = w.now
	}
	for _, id := range a.Left {
		n.left[id] = w.now
	}
	if next := n.watch.Next(); !next.IsZero() && !next.Equal(n.ticking) {
		n.ticking = next
		w.after(max(0, next.Sub(w.now)), func() {
			n.later(func() {
				if n.ticking.Equal(next) {
					n.do(n.watch.Tick(w.now))
				}
			})
		})
	}
}

func (w *world) ids() []uint64 {
	var ids []uint64
	for id, n := range w.nodes {
		if !n.killed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (w *world) pause(n *node, d time.Duration) {
	n.paused = true
	w.after(d, func() {
		n.paused = false
		held := n.held
		n.held = nil
		for _, run := range held {
			run()
		}
	})
}

// agree checks that all hubs that run list those that run.
func (w *world) agree() {
	w.t.Helper()
	ids := w.ids()
	for _, id := range ids {
		require.Equal(w.t, ids, w.nodes[id].watch.Hubs())
		require.Equal(w.t, len(ids), w.nodes[id].watch.Len())
	}
}

// deaths is the number of times that a hub was taken for gone.
func (w *world) deaths() (n int) {
	for _, node := range w.nodes {
		n += len(node.died)
	}
	return n
}

// victim returns some hub.
func (w *world) victim() *node {
	ids := w.ids()
	return w.nodes[ids[w.rng.IntN(len(ids))]]
}
