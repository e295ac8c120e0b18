package flip

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var times = Times(3 * time.Second)

// A cluster is some nodes that share a log, and a clock.
type cluster struct {
	t      *testing.T
	now    time.Time
	random *rand.Rand
	nodes  []*member
	log    []Entry
	late   []said // announcements on their way
	others int    // hubs that do not take part
	lossy  bool
	counts bool // the old backend counts its hubs
	noted  bool
}

// A member is a node and what it would do.
type member struct {
	*Node
	cut   time.Time // it reaches nobody until then
	dead  bool
	busy  bool // something that it publishes is under way
	since time.Time
}

type said struct {
	Announcement
	at time.Time
	to *member
}

func newCluster(t *testing.T, nodes int) *cluster {
	c := &cluster{t: t, now: time.UnixMilli(1e12), random: rand.New(rand.NewPCG(1, 2)), counts: true}
	for range nodes {
		c.start(false)
	}
	return c
}

func (c *cluster) start(hold bool) *member {
	m := &member{Node: New(fmt.Sprintf("hub%d", len(c.nodes)), hold, times, c.now), since: c.now}
	m.Subscribed()
	m.SetReady(true)
	c.nodes = append(c.nodes, m)
	return m
}

func (c *cluster) live() (list []*member) {
	for _, m := range c.nodes {
		if !m.dead {
			list = append(list, m)
		}
	}
	return list
}

// step lets some time pass.
func (c *cluster) step() {
	c.now = c.now.Add(time.Duration(20+c.random.IntN(40)) * time.Millisecond)
	for i := 0; i < len(c.late); i++ {
		if s := c.late[i]; !s.at.After(c.now) {
			c.late = slices.Delete(c.late, i, i+1)
			i--
			if !s.to.dead && s.to.cut.Before(c.now) {
				s.to.Heard(&s.Announcement, true, c.now)
			}
		}
	}
	for _, m := range c.live() {
		m.SetIdle(!m.busy)
		do := m.Next(c.now)
		c.perform(m, &do)
	}
}

func (c *cluster) perform(m *member, do *Do) {
	cut := m.cut.After(c.now)
	if do.Announce != nil && !cut {
		for _, to := range c.live() {
			if !c.lossy || c.random.IntN(10) > 0 {
				c.late = append(c.late, said{*do.Announce, c.now.Add(time.Duration(c.random.IntN(200)) * time.Millisecond), to})
			}
		}
	}
	if do.Probe {
		switch {
		case !c.counts:
			m.Counted(-1)
		case !cut:
			m.Counted(len(c.live()) + c.others)
		}
	}
	if cut && (do.Append != nil || do.Read) {
		m.Failed(c.now)
		return
	}
	if e := do.Append; e != nil && int(e.Attempt) == len(c.log)+1 {
		c.append(*e)
	}
	if do.Read {
		m.Log(c.log, c.now)
	}
	if do.Note {
		c.noted = true
		m.Noted()
	}
}

// append adds an entry, and checks that nobody publishes to the old backend
// when it is a commit.
func (c *cluster) append(e Entry) {
	e.At = uint64(len(c.log)) + 1
	parsed, ok := ParseEntry(e.String(), e.At)
	require.True(c.t, ok)
	require.Equal(c.t, e, parsed)
	c.log = append(c.log, e)
	if e.Kind != Commit {
		return
	}
	for _, m := range c.live() {
		switch {
		case m.phase == Both, m.phase == Pausing && m.busy:
			c.t.Fatalf("%s is in %v (busy %v) when the hubs flip, after %v", m.id, m.phase, m.busy, c.now.Sub(m.since))
		case c.others > 0:
			c.t.Fatal("the hubs flip although there is one that does not take part")
		}
	}
}

// until lets time pass until all hubs that are there are in a phase.
func (c *cluster) until(p Phase, within time.Duration) {
	c.t.Helper()
	for end := c.now.Add(within); ; c.step() {
		if !slices.ContainsFunc(c.live(), func(m *member) bool { return m.Phase() != p }) {
			return
		}
		if c.now.After(end) {
			for _, m := range c.live() {
				c.t.Logf("%s is in %v: %s", m.id, m.Phase(), m.Why(c.now))
			}
			c.t.Fatalf("not all are in %v after %v", p, within)
		}
	}
}

func (c *cluster) pass(d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end); {
		c.step()
	}
}

func TestFlip(t *testing.T) {
	t.Run("all flip when all have been ready for long enough", func(t *testing.T) {
		c := newCluster(t, 3)
		c.until(Both, time.Second)
		c.pass(times.Settle)
		require.Equal(t, Both, c.nodes[0].Phase())
		c.until(Flipped, 5*time.Second)
		c.pass(2 * time.Second)
		require.True(t, c.noted)
		require.Empty(t, c.nodes[0].Why(c.now))
		require.Equal(t, 2, c.nodes[0].Peers(c.now))
	})
	t.Run("a hub alone flips", func(t *testing.T) { newCluster(t, 1).until(Flipped, 10*time.Second) })
	t.Run("a hub that comes later has flipped", func(t *testing.T) {
		c := newCluster(t, 2)
		c.until(Flipped, 10*time.Second)
		m := c.start(false)
		c.pass(time.Second)
		require.Equal(t, Flipped, m.Phase())
	})
	t.Run("a note at the new backend is enough", func(t *testing.T) {
		c := newCluster(t, 1)
		c.nodes[0].Flip(c.now)
		c.until(Flipped, 0)
	})
	t.Run("without a log nobody flips", func(t *testing.T) {
		c := newCluster(t, 2)
		for _, m := range c.nodes {
			m.Logless(c.now)
		}
		c.pass(time.Minute)
		require.Equal(t, Both, c.nodes[1].Phase())
		require.Contains(t, c.nodes[1].Why(c.now), "keeps no history")
	})
}

func TestWaiting(t *testing.T) {
	waits := func(t *testing.T, c *cluster, why string) {
		t.Helper()
		c.pass(40 * time.Second)
		require.NotEqual(t, Flipped, c.nodes[0].Phase())
		require.Contains(t, c.nodes[0].Why(c.now), why)
	}
	t.Run("for a hub that holds", func(t *testing.T) {
		c := newCluster(t, 2)
		m := c.start(true)
		waits(t, c, "hub2 does not listen to both")
		require.Contains(t, m.Why(c.now), "Options.Hold")
	})
	t.Run("for a hub that is not ready", func(t *testing.T) {
		c := newCluster(t, 2)
		c.nodes[1].SetReady(false)
		waits(t, c, "hub1 does not listen to both")
		c.nodes[0].SetReady(false)
		waits(t, c, "this hub does not listen to both")
		c.nodes[0].SetReady(true)
		c.nodes[1].SetReady(true)
		c.until(Flipped, 20*time.Second)
	})
	t.Run("for a hub without this package that is counted", func(t *testing.T) {
		c := newCluster(t, 2)
		c.others = 1
		waits(t, c, "has 3 hubs, and 2 of them take part")
		c.others = 0
		c.until(Flipped, 10*time.Second)
	})
	t.Run("for hubs of another prefix", func(t *testing.T) {
		c := newCluster(t, 2)
		c.others = -2
		waits(t, c, "Options.Prefix")
	})
	t.Run("says the same while nothing changes", func(t *testing.T) {
		c := newCluster(t, 4)
		c.others = 1
		c.pass(5 * time.Second)
		for range 100 {
			require.Contains(t, c.nodes[3].Why(c.now), "hub hub0 begins the flip")
		}
	})
	t.Run("for one that is heard", func(t *testing.T) {
		c := newCluster(t, 1)
		c.counts = false
		for range 20 {
			c.nodes[0].Hello(7, c.now)
			c.pass(time.Second)
		}
		waits := c.nodes[0].Why(c.now)
		require.Contains(t, waits, "hub 0000000000000007 does not take part")
		c.nodes[0].Known(7)
		c.until(Flipped, 10*time.Second)
	})
	t.Run("for Settle after one was heard, and no longer", func(t *testing.T) {
		c := newCluster(t, 2)
		c.counts = false
		c.pass(10 * time.Second / 4)
		c.nodes[0].Hello(7, c.now)
		c.nodes[1].Hello(7, c.now)
		c.pass(times.Settle - time.Second/2)
		require.Equal(t, Both, c.nodes[0].Phase())
		c.until(Flipped, 2*time.Second)
	})
	t.Run("longer by default, and with many hubs", func(t *testing.T) {
		n := New("a", false, Times(0), time.Time{})
		require.Equal(t, 150*time.Second, n.settle(3))
		require.Equal(t, 300*time.Second, n.settle(200))
	})
}

func TestAttempt(t *testing.T) {
	t.Run("fails while a hub is busy, and is made again", func(t *testing.T) {
		c := newCluster(t, 3)
		c.until(Both, time.Second)
		c.nodes[2].busy = true
		c.pass(20 * time.Second)
		require.Contains(t, c.log, Entry{Abort, 4, "hub0", 4})
		c.nodes[2].busy = false
		c.until(Flipped, 20*time.Second)
	})
	t.Run("fails when the leader dies, and all continue", func(t *testing.T) {
		c := newCluster(t, 3)
		c.nodes[1].busy = true
		for c.nodes[1].Phase() != Pausing {
			c.step()
		}
		c.nodes[0].dead = true
		c.until(Both, 10*time.Second)
		c.nodes[1].busy = false
		c.until(Flipped, 60*time.Second)
	})
	t.Run("fails when a hub joins meanwhile", func(t *testing.T) {
		c := newCluster(t, 2)
		c.nodes[1].busy = true
		for c.nodes[1].Phase() != Pausing {
			c.step()
		}
		m := c.start(false)
		c.pass(500 * time.Millisecond)
		require.Equal(t, Both, m.Phase())
		c.nodes[1].busy = false
		c.until(Flipped, 30*time.Second)
	})
	t.Run("without a hub that is there is ended by that hub", func(t *testing.T) {
		c := newCluster(t, 2)
		c.until(Both, time.Second)
		n := c.nodes[1]
		n.Heard(&Announcement{ID: "hub9", Pause: 3, Members: []string{"hub9"}}, true, c.now)
		do := n.Next(c.now)
		require.Equal(t, &Entry{Kind: Abort, Attempt: 3, Node: "hub1"}, do.Append)
	})
}

func TestLease(t *testing.T) {
	c := newCluster(t, 2)
	c.others = 1 // they do not flip
	c.until(Both, time.Second)
	m := c.nodes[1]
	m.cut = c.now.Add(20 * time.Second)
	c.pass(times.Lease + 2*time.Second)
	require.Equal(t, Asking, m.Phase(), "it does not hear itself")
	c.others = 0
	c.pass(10 * time.Second)
	require.Equal(t, Asking, m.Phase())
	c.until(Flipped, 40*time.Second)
}

// TestSimulation makes hubs start, die and be cut off at random, and loses
// announcements. No hub publishes to the old backend when the hubs flip, and in
// the end they do flip.
func TestSimulation(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			c := newCluster(t, 3)
			c.random = rand.New(rand.NewPCG(seed, 1))
			c.lossy, c.counts = true, c.random.IntN(2) == 0
			for range c.random.IntN(1500) {
				c.chance()
				c.step()
			}
			c.lossy = false
			for _, m := range c.live() {
				m.busy = false
				m.SetReady(true)
			}
			c.until(Flipped, 3*time.Minute)
		})
	}
}

func (c *cluster) chance() {
	live := c.live()
	m := live[c.random.IntN(len(live))]
	switch c.random.IntN(200) {
	case 0:
		if len(live) < 6 {
			c.start(false)
		}
	case 1:
		if len(live) > 1 {
			m.dead = true
		}
	case 2:
		m.cut = c.now.Add(time.Duration(c.random.IntN(20_000)) * time.Millisecond)
	case 3:
		m.SetReady(c.random.IntN(2) == 0)
	case 4, 5, 6, 7:
		// Only a hub that publishes has something under way.
		m.busy = m.phase == Both && c.random.IntN(2) == 0
	}
}
