package watch

import (
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/stretchr/testify/require"
)

const (
	detectCounted = 3600 * time.Millisecond // as the package comment says, with latency
	detectSilent  = 6600 * time.Millisecond
)

func TestWatch(t *testing.T) {
	for _, hubs := range []int{2, 3, 10, 30} {
		for _, counts := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d hubs, counts=%v", hubs, counts), func(t *testing.T) { testWatch(t, hubs, counts) })
		}
	}
}

func TestMet(t *testing.T) {
	now := time.UnixMilli(5000)
	w := New(1, 0, Default)
	require.Zero(t, w.Since(2))
	a := w.Hello(2, &control.Hello{Since: 1234}, now)
	require.Equal(t, []uint64{2}, a.Came)
	require.Equal(t, []uint64{2}, a.Met)
	require.Equal(t, time.UnixMilli(1234), w.Since(2))
	require.Equal(t, []uint64{2}, w.Verdict(3, &control.Verdict{Gone: true, Hub: 2}, now).Died)
	a = w.Hello(2, &control.Hello{Since: 1234, Incarnation: 1}, now)
	require.Equal(t, []uint64{2}, a.Came, "it is back")
	require.Empty(t, a.Met)
}

func testWatch(t *testing.T, hubs int, counts bool) {
	t.Run("all know each other", func(t *testing.T) { newWorld(t, hubs, counts).agree() })
	t.Run("a hub that was killed is gone within the documented time", func(t *testing.T) {
		limit := detectSilent
		if counts {
			limit = detectCounted
		}
		for range 20 {
			w := newWorld(t, hubs, counts)
			w.run(time.Duration(w.rng.IntN(1000)) * time.Millisecond)
			dead := w.victim()
			dead.killed = true
			at := w.now
			w.run(limit)
			w.agree()
			for _, id := range w.ids() {
				require.Contains(t, w.nodes[id].died, dead.id)
				require.LessOrEqual(t, w.nodes[id].died[dead.id].Sub(at), limit)
			}
			w.run(2 * time.Minute)
			w.agree()
			require.Equal(t, hubs-1, w.deaths(), "once for each of the others")
		}
	})
	t.Run("a pause of a second is no event", func(t *testing.T) {
		w := newWorld(t, hubs, counts)
		for range 20 {
			w.pause(w.victim(), time.Second)
			w.run(3 * time.Second)
		}
		require.Zero(t, w.deaths())
		w.agree()
	})
	t.Run("a hub that was stopped for long comes back, and suspects no other", func(t *testing.T) {
		w := newWorld(t, hubs, counts)
		n := w.victim()
		w.pause(n, 30*time.Second)
		w.run(29 * time.Second)
		require.Equal(t, hubs-1, w.deaths())
		w.run(6 * time.Second)
		w.agree()
		require.Equal(t, hubs-1, w.deaths())
		require.Empty(t, n.died)
	})
	t.Run("a hub that leaves in order has not died", func(t *testing.T) {
		w := newWorld(t, hubs, counts)
		n := w.victim()
		n.do(n.watch.Leave())
		n.killed = true
		w.run(time.Second)
		w.agree()
		require.Zero(t, w.deaths())
		for _, id := range w.ids() {
			require.Contains(t, w.nodes[id].left, n.id)
		}
	})
	t.Run("an outage of the backend is no event", func(t *testing.T) {
		w := newWorld(t, hubs, counts)
		w.down = true
		w.run(time.Minute)
		w.down = false
		w.run(5 * time.Second)
		require.Zero(t, w.deaths())
		w.agree()
	})
	t.Run("a hub that does not hear itself suspects no other", func(t *testing.T) {
		w := newWorld(t, hubs, false)
		n := w.victim()
		n.offline, n.silent = true, true
		w.run(time.Minute)
		require.Empty(t, n.died)
		n.offline, n.silent = false, false
		w.run(5 * time.Second)
		w.agree()
	})
	t.Run("a hub whose inbox is down for a second is no event", func(t *testing.T) {
		w := newWorld(t, hubs, counts)
		n := w.victim()
		n.offline = true
		w.run(time.Second)
		n.offline = false
		w.run(10 * time.Second)
		require.Zero(t, w.deaths())
		w.agree()
	})
	t.Run("a hub learns from lists what it did not hear", func(t *testing.T) {
		w := newWorld(t, hubs, counts)
		n := w.victim()
		n.silent = true
		added := w.start()
		w.run(10 * time.Second)
		w.agree()
		added.killed = true
		w.run(20 * time.Second)
		w.agree()
	})
}

// Several watchers of a hub die with it.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, 30, true)
	for range 20 {
		w.victim().killed = true
	}
	w.run(20 * time.Second)
	w.agree()
	for range 20 {
		w.start()
	}
	w.run(5 * time.Second)
	w.agree()
}

func TestWatchCost(t *testing.T) {
	for _, hubs := range []int{3, 10, 30, 1000} {
		w := newWorld(t, min(hubs, 30), true)
		var all control.Roster
		for id := range w.nodes {
			all.Hubs = append(all.Hubs, control.Known{Hub: id})
		}
		for range hubs - len(w.nodes) { // the others only answer
			n := &node{world: w, id: w.rng.Uint64(), stub: true}
			w.nodes[n.id] = n
			all.Hubs = append(all.Hubs, control.Known{Hub: n.id})
		}
		for _, n := range w.nodes {
			if !n.stub {
				n.do(n.watch.Roster(all.Hubs[0].Hub, &all, w.now))
			}
		}
		w.run(2 * time.Second)
		before := make(map[uint64]int)
		for id, n := range w.nodes {
			before[id] = n.probes
		}
		const seconds = 10
		w.run(seconds * time.Second)
		most, probes, hubsCounted := 0, 0, 0
		for id, n := range w.nodes {
			if n.stub {
				continue
			}
			p := n.probes - before[id]
			most, probes, hubsCounted = max(most, p), probes+p, hubsCounted+1
			require.Equal(t, hubs, n.watch.Len())
		}
		mean := float64(probes) / float64(hubsCounted) / seconds
		t.Logf("%4d hubs: a hub sends %.1f probes a second, and as many acks but one; the busiest %.1f probes",
			hubs, mean, float64(most)/seconds)
		require.LessOrEqual(t, mean, 4.6, "three watchers, and its own inbox")
		require.LessOrEqual(t, most, 15*seconds)
	}
}

func TestHello(t *testing.T) {
	now := time.Unix(1, 0)
	t.Run("of a lower incarnation does not bring a hub back", func(t *testing.T) {
		w := New(1, 0, Default)
		require.Equal(t, []uint64{2}, w.Hello(2, &control.Hello{Incarnation: 3}, now).Came)
		require.Equal(t, []uint64{2}, w.Verdict(2, &control.Verdict{Gone: true, Hub: 2, Incarnation: 3}, now).Died)
		require.Equal(t, Gone, w.State(2))
		a := w.Hello(2, &control.Hello{Incarnation: 3}, now)
		require.Empty(t, a.Came)
		require.Equal(t, []Message{{2, &control.Verdict{Gone: true, Hub: 2, Incarnation: 3}}}, a.Tell, "it is told")
		require.Empty(t, w.Heard(2, now).Tell, "once a second")
		require.Equal(t, []uint64{2}, w.Hello(2, &control.Hello{Incarnation: 4}, now).Came)
		require.Equal(t, Alive, w.State(2))
		require.Equal(t, now, w.LastHeard(2))
	})
	t.Run("with which a hub leaves that never came is news of its end only", func(t *testing.T) {
		w := New(1, 0, Default)
		leaving := &control.Hello{Leaving: true}
		require.Equal(t, Actions{Left: []uint64{2}}, w.Hello(2, leaving, now))
		require.Equal(t, Gone, w.State(2))
		require.Equal(t, 1, w.Len())
		require.Empty(t, w.Hello(2, leaving, now).Left, "once")
		require.Empty(t, w.Hello(2, &control.Hello{}, now).Came, "which was sent before, and comes late")
		w.Tick(now.Add(Default.Grave))
		require.Equal(t, Unknown, w.State(2))
	})
	t.Run("is overtaken by the news of an end", func(t *testing.T) {
		w := New(1, 0, Default)
		w.Verdict(2, &control.Verdict{Gone: true, Hub: 2, Incarnation: 3}, now)
		w.Verdict(2, &control.Verdict{Gone: true, Hub: 2, Incarnation: 5}, now)
		require.Empty(t, w.Hello(2, &control.Hello{Incarnation: 4}, now).Came)
	})
	t.Run("an end of an earlier incarnation is old news", func(t *testing.T) {
		w := New(1, 0, Default)
		w.Hello(2, &control.Hello{Incarnation: 3}, now)
		require.Empty(t, w.Verdict(2, &control.Verdict{Gone: true, Hub: 2, Incarnation: 2}, now).Died)
	})
	t.Run("is the answer to a suspicion", func(t *testing.T) {
		w := New(1, 7, Default)
		a := w.Verdict(2, &control.Verdict{Hub: 1}, now)
		require.Equal(t, []control.Payload{&control.Hello{Incarnation: 1, Since: 7}}, a.Say)
		require.Empty(t, w.Verdict(2, &control.Verdict{Hub: 1}, now).Say, "which was answered before")
		require.NotEmpty(t, w.Roster(2, &control.Roster{Hubs: []control.Known{{Hub: 1, Incarnation: 1, Gone: true}}}, now).Say)
	})
	t.Run("is the answer to the news of its own end", func(t *testing.T) {
		w := New(1, 7, Default)
		a := w.Verdict(2, &control.Verdict{Hub: 1, Gone: true}, now)
		hello := &control.Hello{Incarnation: 1, Since: 7}
		require.Equal(t, Actions{Say: []control.Payload{hello}, Back: true}, a)
		a = w.Verdict(2, &control.Verdict{Hub: 1, Gone: true}, now)
		require.Equal(t, Actions{Tell: []Message{{2, hello}}, Back: true}, a, "which the other one has missed")
	})
	t.Run("is forgotten a minute after the end", func(t *testing.T) {
		w := New(1, 0, Default)
		require.Zero(t, w.Next())
		w.Hello(2, &control.Hello{}, now)
		w.Verdict(2, &control.Verdict{Gone: true, Hub: 2}, now)
		w.Tick(w.Next())
		require.Equal(t, now.Add(Default.Grave), w.Next())
		w.Tick(w.Next())
		require.Equal(t, Unknown, w.State(2))
		require.Zero(t, w.Next())
		require.Zero(t, w.LastHeard(2))
	})
}

func TestBounds(t *testing.T) {
	now := time.Unix(1, 0)
	w := New(1, 0, Default)
	for page := range uint64(9) {
		var r control.Roster
		for i := range uint64(2000) {
			r.Hubs = append(r.Hubs, control.Known{Hub: 2 + page*2000 + i, Gone: page > 0})
		}
		w.Roster(2, &r, now)
	}
	require.Len(t, w.hubs, maxHubs)
	require.Empty(t, w.Hello(1<<40, &control.Hello{}, now).Came)
	a := w.Roster(2, &control.Roster{Answer: true}, now)
	require.Greater(t, len(a.Tell), 1, "in pages")
	for _, m := range a.Tell {
		require.LessOrEqual(t, len(m.Payload.Append(nil)), 64<<10)
	}
	w.Probed(1<<40, Nobody, now) // nobody it knows
}

func TestUnknownProber(t *testing.T) {
	w := New(1, 0, Default)
	a := w.Receive(2, &control.Probe{Number: 1}, time.Unix(1, 0))
	require.Len(t, a.Tell, 1)
	require.True(t, a.Tell[0].Payload.(*control.Roster).Answer, "it is asked for its list")
}
