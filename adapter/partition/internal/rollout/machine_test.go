package rollout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	patience = 10 * time.Second
	start    = 500 * time.Millisecond
)

var (
	one = []string{"a"}
	two = []string{"a", "b"}
)

// A bench is a machine with a clock.
type bench struct {
	*Machine
	t   *testing.T
	now time.Time
}

func newBench(t *testing.T) *bench {
	return &bench{New("me", one, patience, start), t, time.Unix(1_000_000, 0)}
}

func (b *bench) pass(d time.Duration) { b.now = b.now.Add(d) }

// round plays a round on partition a, of which receivers get the question and
// some adapters answer.
func (b *bench) round(receivers int, answers ...State) {
	b.t.Helper()
	for {
		due, wait := b.Due(b.now)
		if due {
			break
		}
		require.Positive(b.t, wait, "a round is due at some time")
		b.pass(wait)
	}
	id := b.Begin([]string{"a"}, b.now)
	b.Asked(id, "a", receivers)
	b.Answer(id, "a", b.State(), b.now)
	for _, s := range answers {
		b.Answer(id, "a", s, b.now)
	}
}

func (b *bench) is(action Action, stage Stage) {
	b.t.Helper()
	require.Equal(b.t, action, b.Decide(b.now))
	require.Equal(b.t, stage, b.State().Stage, "%v", b.State().Stage)
}

// steady makes the machine steady, alone.
func (b *bench) steady() *bench {
	b.t.Helper()
	b.round(1)
	b.is(Enter, Steady)
	require.Equal(b.t, uint64(1), b.State().Epoch)
	return b
}

func other(epoch uint64, names, want []string, s Stage) State {
	return State{Hub: "other", Epoch: epoch, Names: names, Want: want, Stage: s, Done: true}
}

// Which of two sets takes precedence.
func TestStateBefore(t *testing.T) {
	set := func(epoch, era uint64, names []string) State { return State{Epoch: epoch, Era: era, Names: names} }
	for _, test := range []struct {
		name       string
		less, more State
	}{
		{"a later set of any era", set(1, 5, one), set(2, 9, two)},
		{"of one epoch, the older era", set(1, 9, one), set(1, 5, two)},
		{"of one epoch and era, the one that sorts earlier", set(1, 5, two), set(1, 5, one)},
		{"where an era is not known, too", set(1, 0, two), set(1, 5, one)},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.True(t, test.less.before(&test.more))
			require.False(t, test.more.before(&test.less))
		})
	}
}

func TestMachine(t *testing.T) {
	t.Run("takes each step when all have taken the one before", func(t *testing.T) {
		b := newBench(t).steady()
		require.True(t, b.Want(two))
		b.is(Enter, Opening)
		require.Contains(t, b.Waiting(), "opening")
		b.is(None, Opening)
		b.Done(Opening)
		b.is(None, Ready)
		for _, behind := range []State{other(1, one, one, Steady), other(1, one, two, Opening), other(0, two, two, Learning)} {
			b.round(2, behind)
			b.is(None, Ready)
			require.Contains(t, b.Waiting(), "hub other, which is "+behind.Stage.String())
		}
		b.round(2, other(1, one, two, Ready))
		b.is(Enter, Drained)
		due, _ := b.Due(b.now)
		require.False(t, due, "nothing is asked before the work is done")
		require.False(t, b.Want(one), "it is too late to go back")
		b.Done(Drained)
		undone := other(1, one, two, Drained)
		undone.Done = false
		b.round(2, undone)
		b.is(None, Drained)
		b.round(2, other(1, one, two, Drained))
		b.is(Enter, Flushed)
		b.round(2, other(1, one, two, Drained))
		b.is(None, Flushed)
		b.round(2, other(1, one, two, Flushed))
		b.is(Enter, Switched)
		require.Equal(t, State{Hub: "me", Era: 1_000_000_000, Epoch: 2, Names: two, Old: one, Want: two, Stage: Switched}, b.State())
		b.Done(Switched)
		b.round(2, other(1, one, two, Flushed))
		b.is(None, Switched)
		b.round(2, other(2, two, two, Switched))
		b.is(Enter, Steady)
		require.Empty(t, b.Waiting())
		due, wait := b.Due(b.now)
		require.False(t, due)
		require.Zero(t, wait, "nothing is asked in peace")
	})
	t.Run("waits for all hubs that are counted", func(t *testing.T) {
		b := newBench(t).steady()
		b.Want(two)
		b.is(Enter, Opening)
		b.Done(Opening)
		b.round(3, other(1, one, two, Ready))
		b.pass(patience - 1)
		b.is(None, Ready)
		require.Contains(t, b.Waiting(), "1 of 3 answers")
		b.round(2)
		b.pass(time.Hour)
		b.is(None, Ready)
		require.Contains(t, b.Waiting(), "1 of 2 answers", "one that is known is waited for while it is counted")
	})
	t.Run("waits once for one that is counted and was never heard", func(t *testing.T) {
		b := newBench(t)
		b.round(2)
		b.pass(patience - 1)
		b.is(None, Learning)
		b.pass(1)
		b.is(Enter, Steady)
		b.Want(two)
		b.is(Enter, Opening)
		b.Done(Opening)
		b.round(2)
		b.is(Enter, Drained)
		b.Done(Drained)
		b.round(3)
		b.is(None, Drained)
		b.pass(patience)
		b.is(Enter, Flushed)
	})
	t.Run("waits for a late answer as long after many rounds", func(t *testing.T) {
		b := newBench(t).steady()
		b.Want(two)
		b.is(Enter, Opening)
		b.Done(Opening)
		b.round(2, other(1, one, one, Steady))
		b.is(None, Ready)
		b.pass(time.Hour)
		b.round(3, other(1, one, two, Ready))
		b.is(None, Ready)
	})
	t.Run("hears hubs that come while it asks", func(t *testing.T) {
		b := newBench(t).steady()
		b.Want(two)
		b.is(Enter, Opening)
		b.Done(Opening)
		b.round(1)
		b.Hear(other(0, two, two, Learning), b.now)
		b.is(None, Ready)
	})
	t.Run("waits for a while for a hub that has stopped being counted", func(t *testing.T) {
		b := newBench(t).steady()
		b.Want(two)
		b.is(Enter, Opening)
		b.Hear(other(1, one, two, Ready), b.now)
		b.Done(Opening)
		b.round(1)
		b.is(None, Ready)
		b.pass(patience)
		b.round(1)
		b.is(Enter, Drained)
	})
	t.Run("does not wait for one that has said good-bye", func(t *testing.T) {
		b := newBench(t).steady()
		b.Want(two)
		b.is(Enter, Opening)
		b.Hear(other(1, one, two, Ready), b.now)
		b.Leave("other")
		b.Done(Opening)
		b.round(1)
		b.is(Enter, Drained)
	})
	t.Run("waits where the backend does not count", func(t *testing.T) {
		b := newBench(t)
		b.round(-1)
		b.is(None, Learning)
		b.pass(start)
		b.is(Enter, Steady)
		b.Want(two)
		b.is(Enter, Opening)
		b.Done(Opening)
		b.round(-1, other(1, one, two, Ready))
		b.is(None, Ready)
		b.pass(patience)
		b.is(Enter, Drained)
		b.Done(Drained)
		b.round(-1, other(1, one, two, Drained))
		b.is(Enter, Flushed) // the others are known now
	})
	t.Run("leaves out a partition that cannot be reached, after a while", func(t *testing.T) {
		b := newBench(t)
		id := b.Begin([]string{"a", "b"}, b.now)
		b.AskFailed(id, "b", b.now)
		b.Asked(id, "a", 1)
		b.Answer(id, "a", b.State(), b.now)
		b.is(None, Learning)
		b.pass(start)
		b.is(Enter, Steady)
	})
	t.Run("never continues without any answer", func(t *testing.T) {
		b := newBench(t)
		id := b.Begin([]string{"a"}, b.now)
		b.AskFailed(id, "a", b.now)
		b.pass(time.Hour)
		b.is(None, Learning)
		due, _ := b.Due(b.now)
		require.True(t, due)
	})
	t.Run("follows", func(t *testing.T) {
		three := []string{"a", "b", "c"}
		t.Run("when it starts", func(t *testing.T) {
			b := newBench(t)
			b.round(2, other(7, two, two, Steady))
			b.is(Adopt, Steady)
			require.Equal(t, two, b.State().Names)
			b.is(Enter, Opening) // its own set is wanted
		})
		t.Run("what has become current without it", func(t *testing.T) {
			b := newBench(t).steady()
			b.Hear(other(2, two, two, Switched), b.now)
			b.is(Adopt, Steady)
			require.Equal(t, two, b.State().Want)
			b.is(None, Steady)
		})
		t.Run("when others are drained", func(t *testing.T) {
			b := newBench(t).steady()
			b.Hear(other(1, one, three, Drained), b.now)
			b.is(Follow, Steady)
			b.is(Enter, Opening)
			require.Equal(t, three, b.State().Want)
		})
		t.Run("one of two that began at once", func(t *testing.T) {
			b := newBench(t).steady()
			b.Hear(other(1, two, two, Steady), b.now)
			b.is(None, Steady)
			o := &bench{New("other", two, patience, start), t, b.now}
			o.steady().Hear(b.State(), b.now)
			o.is(Adopt, Steady)
			require.Equal(t, one, o.State().Names)
		})
	})
	t.Run("asks at once when it may have missed something", func(t *testing.T) {
		b := newBench(t).steady()
		b.pass(time.Hour)
		b.Check()
		require.True(t, b.Checking())
		b.round(2, other(1, one, one, Steady))
		b.is(None, Steady)
		require.False(t, b.Checking())
	})
	t.Run("gives a change up", func(t *testing.T) {
		b := newBench(t).steady()
		b.Want(two)
		b.is(Enter, Opening)
		require.True(t, b.Want(one))
		b.is(None, Steady)
	})
}

// TestMachines lets several machines change sets, with messages that take any
// time. No machine switches while another publishes to the old homes.
func TestMachines(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { newNet(t, seed).run() })
	}
}

// A net is some machines on one partition, which counts.
type net struct {
	t       *testing.T
	random  *rand.Rand
	now     time.Time
	all     []*Machine
	flights []func()
}

func newNet(t *testing.T, seed uint64) *net {
	n := &net{t: t, random: rand.New(rand.NewPCG(seed, 3)), now: time.Unix(1_000_000, 0)}
	for i := range 3 {
		n.all = append(n.all, New(fmt.Sprint("hub", i), one, patience, start))
	}
	return n
}

func (n *net) run() {
	wants := 0
	for range 5000 {
		n.now = n.now.Add(time.Millisecond)
		if i := n.random.IntN(300); i < len(n.all) && n.all[i].State().Epoch > 0 {
			n.all[i].Want(two)
			wants++
		}
		if n.random.IntN(200) == 0 && len(n.all) < 5 {
			n.all = append(n.all, New(fmt.Sprint("hub", len(n.all)), two, patience, start))
		}
		for k := 0; len(n.flights) > 0 && k < 3; k++ {
			i := n.random.IntN(len(n.flights))
			f := n.flights[i]
			n.flights = slices.Delete(n.flights, i, i+1)
			f()
		}
		m := n.all[n.random.IntN(len(n.all))]
		n.step(m)
		n.check()
	}
}

func (n *net) step(m *Machine) {
	if m.Decide(n.now) != None {
		s := m.State().Stage
		n.flights = append(n.flights, func() { m.Done(s) })
		n.tell(m)
	}
	if due, _ := m.Due(n.now); !due {
		return
	}
	id := m.Begin(one, n.now)
	n.flights = append(n.flights, func() { m.Asked(id, "a", len(n.all)) })
	for _, o := range slices.Clone(n.all) {
		asked := m.State()
		n.flights = append(n.flights, func() {
			o.Hear(asked, n.now)
			answer := o.State()
			n.flights = append(n.flights, func() { m.Answer(id, "a", answer, n.now) })
		})
	}
}

func (n *net) tell(m *Machine) {
	s := m.State()
	for _, o := range n.all {
		n.flights = append(n.flights, func() { o.Hear(s, n.now) })
	}
}

// check checks that no two machines are more than a step apart.
func (n *net) check() {
	switched := slices.ContainsFunc(n.all, func(m *Machine) bool { return m.State().Epoch == 2 })
	for _, m := range n.all {
		s := m.State()
		if switched && s.Epoch == 1 {
			require.GreaterOrEqual(n.t, s.Stage, Drained, "%s publishes to the old homes", s.Hub)
		}
	}
}
