package presence

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/stretchr/testify/require"
)

// A world is hubs that have members in one room.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	params Params
	hubs   []*simHub
	later  []delayed
	faulty bool
	lives  uint64
	member uint64
}

type delayed struct {
	at  time.Time
	run func()
}

type simHub struct {
	world    *world
	id       uint64
	dead     bool
	local    *Local
	follower *Follower
	members  map[uint64]control.Entry // the truth
	channel  []func()                 // what has been published and not yet arrived here
	changes  []*Change
	watchers []*watcher
	sent     int
	notices  int
}

// A watcher is a member that knows who is there from a list and changes.
type watcher struct {
	number uint64
	people map[personKey]Person
	large  bool
	count  int
}

func newWorld(t *testing.T, seed uint64, p Params, hubs int) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 2)), now: time.Unix(1_700_000_000, 0), params: p}
	for range hubs {
		w.start()
	}
	return w
}

func (w *world) start() *simHub {
	w.lives++
	h := &simHub{
		world: w, id: w.lives * 1000, local: NewLocal(w.lives, w.params), follower: NewFollower(),
		members: make(map[uint64]control.Entry),
	}
	w.hubs = append(w.hubs, h)
	for _, other := range w.hubs { // the question to the room
		if !other.dead && other != h {
			a := other.local.Snapshot(&control.Question{})
			if a.Seq > 0 {
				h.do(h.follower.Snapshot(other.id, w.wire(a).(*control.Answer), 0, w.now))
			}
		}
	}
	h.do(h.follower.Settle())
	return h
}

func (w *world) wire(p control.Payload) control.Payload {
	got, err := control.Decode(p.Append(nil))
	require.NoError(w.t, err)
	return got
}

func (w *world) alive() (some []*simHub) {
	for _, h := range w.hubs {
		if !h.dead {
			some = append(some, h)
		}
	}
	return some
}

func (w *world) any() *simHub {
	some := w.alive()
	return some[w.rng.IntN(len(some))]
}

func (w *world) after(d time.Duration, run func()) {
	w.later = append(w.later, delayed{w.now.Add(d), run})
}

// step lets a little time pass.
func (w *world) step(d time.Duration) {
	w.now = w.now.Add(d)
	due := w.later
	w.later = nil
	for _, d := range due {
		if d.at.After(w.now) {
			w.later = append(w.later, d)
		} else {
			d.run()
		}
	}
	for _, h := range w.alive() {
		h.local.See(h.follower.Hubs(), h.follower.Total())
		if next := h.local.Next(); !next.IsZero() && !next.After(w.now) {
			if a := h.local.Announce(w.now); a != nil {
				h.publish(a)
			}
		}
		if next := h.follower.Next(); !next.IsZero() && !next.After(w.now) {
			h.do(h.follower.Tick(w.now))
		}
		h.arrive()
	}
}

func (w *world) run(d time.Duration) {
	const fine, coarse = time.Millisecond, 10 * time.Millisecond
	for end := w.now.Add(d); w.now.Before(end); {
		if end.Sub(w.now) > 10*coarse {
			w.step(coarse)
		} else {
			w.step(fine)
		}
	}
}

func (h *simHub) publish(a *control.Announcement) {
	w := h.world
	h.sent++
	raw := a.Append(nil)
	lost := w.faulty && w.rng.IntN(5) == 0
	if !lost {
		for _, to := range w.alive() {
			to.channel = append(to.channel, func() {
				p, err := control.Decode(raw)
				require.NoError(w.t, err)
				to.do(to.follower.Receive(h.id, p.(*control.Announcement), w.now))
			})
		}
	}
	ok := !lost && !(w.faulty && w.rng.IntN(5) == 0) // it may have arrived though it failed
	w.after(time.Millisecond, func() { h.local.Sent(ok, w.now) })
}

// arrive takes what has been published, in order but for faults.
func (h *simHub) arrive() {
	w := h.world
	for len(h.channel) > 0 {
		if w.faulty {
			switch w.rng.IntN(8) {
			case 0: // lost
				h.channel = h.channel[1:]
				continue
			case 1: // twice
				h.channel[0]()
			case 2: // late
				if len(h.channel) > 1 {
					h.channel[0], h.channel[1] = h.channel[1], h.channel[0]
				}
			case 3: // later
				return
			}
		}
		run := h.channel[0]
		h.channel = h.channel[1:]
		run()
	}
}

func (h *simHub) do(s Step) {
	w := h.world
	if s.Change != nil {
		h.notices++
		h.changes = append(h.changes, s.Change)
		for _, m := range h.watchers {
			m.apply(w.t, s.Change)
		}
	}
	for _, ask := range s.Ask {
		if w.faulty && w.rng.IntN(3) == 0 {
			continue
		}
		w.after(2*time.Millisecond, func() {
			for _, other := range w.alive() {
				if other.id == ask.Hub {
					a := other.local.Snapshot(&control.Question{Life: ask.Life, Seq: ask.Seq, Digest: ask.Digest})
					w.after(time.Duration(1+w.rng.IntN(200))*time.Millisecond, func() {
						if !h.dead && !(w.faulty && w.rng.IntN(3) == 0) {
							h.do(h.follower.Snapshot(ask.Hub, w.wire(a).(*control.Answer), ask.Doubts, w.now))
						}
					})
				}
			}
		})
	}
}

// watch adds a watcher that has the list of now.
func (h *simHub) watch() {
	m := new(watcher)
	m.apply(h.world.t, h.follower.List())
	h.watchers = append(h.watchers, m)
}

func (m *watcher) apply(t *testing.T, c *Change) {
	if c.Number <= m.number && m.people != nil {
		return
	}
	if !c.Reset {
		require.Equal(t, m.number+1, c.Number, "a change between was not seen")
		require.False(t, m.large)
	}
	m.number, m.large, m.count = c.Number, c.Large, c.Count
	if c.Reset {
		m.people = make(map[personKey]Person)
	}
	for _, p := range c.Joined {
		k := personKey{p.User, p.Hub, p.Member}
		require.NotContains(t, m.people, k)
		m.people[k] = p
	}
	for _, p := range c.Updated {
		k := personKey{p.User, p.Hub, p.Member}
		require.Contains(t, m.people, k)
		p.Since = m.people[k].Since
		m.people[k] = p
	}
	for _, p := range c.Left {
		k := personKey{p.User, p.Hub, p.Member}
		require.Contains(t, m.people, k)
		delete(m.people, k)
	}
}

// truth is who is there: by person, the info of the connection that is there
// longest.
func (w *world) truth() map[personKey]string {
	type at struct {
		hub uint64
		control.Entry
	}
	all := make(map[personKey][]at)
	for _, h := range w.alive() {
		for _, e := range h.members {
			k := key(h.id, &e)
			all[k] = append(all[k], at{h.id, e})
		}
	}
	people := make(map[personKey]string)
	for k, list := range all {
		first := slices.MinFunc(list, func(a, b at) int {
			return cmp.Or(cmp.Compare(a.Since, b.Since), cmp.Compare(a.hub, b.hub), cmp.Compare(a.Number, b.Number))
		})
		people[k] = string(first.Data)
	}
	return people
}

// agree checks that all watchers know the truth.
func (w *world) agree() {
	w.t.Helper()
	truth := w.truth()
	count := 0
	for _, h := range w.alive() {
		count += len(h.members)
	}
	for _, h := range w.alive() {
		h.watch()
		require.Equal(w.t, count, h.follower.Total())
		for _, m := range h.watchers {
			if count > w.params.Limit || count <= max(w.params.Limit*3/4, 1) {
				require.Equal(w.t, count > w.params.Limit, m.large)
			}
			if m.large {
				require.Equal(w.t, count, m.count)
				require.LessOrEqual(w.t, len(m.people), maxSample)
				continue
			}
			got := make(map[personKey]string)
			for k, p := range m.people {
				got[k] = string(p.Info)
			}
			require.Equal(w.t, truth, got)
		}
	}
}

func (h *simHub) join(user, info string) uint64 {
	w := h.world
	w.member++
	e := control.Entry{Number: w.member, Since: uint64(w.now.UnixMilli()), Count: 1, Name: []byte(user), Data: []byte(info)}
	h.members[e.Number] = e
	h.local.Join(e)
	return e.Number
}

func (h *simHub) leave(number uint64) {
	delete(h.members, number)
	h.local.Leave(number, h.world.now)
}

// some returns the number of some member.
func (h *simHub) some() (uint64, bool) {
	if len(h.members) == 0 {
		return 0, false
	}
	numbers := slices.Sorted(maps.Keys(h.members))
	return numbers[h.world.rng.IntN(len(numbers))], true
}

// act does something at random.
func (w *world) act() {
	h := w.any()
	user := ""
	if w.rng.IntN(3) > 0 {
		user = fmt.Sprint("user ", w.rng.IntN(40))
	}
	switch w.rng.IntN(8) {
	case 0, 1, 2:
		h.join(user, fmt.Sprint("info ", w.rng.IntN(5)))
	case 3, 4:
		if n, ok := h.some(); ok {
			h.leave(n)
		}
	case 5: // it moves
		if n, ok := h.some(); ok {
			e := h.members[n]
			h.leave(n)
			w.any().join(string(e.Name), string(e.Data))
		}
	case 6:
		if n, ok := h.some(); ok {
			e := h.members[n]
			e.Data = []byte(fmt.Sprint("info ", w.rng.IntN(5)))
			h.members[n] = e
			h.local.SetInfo(n, e.Data)
		}
	case 7:
		h.watch()
	}
}

// restore ends the faults: interrupted subscriptions stand again.
func (w *world) restore() {
	w.faulty = false
	for _, h := range w.alive() {
		h.do(h.follower.Doubt(w.now))
	}
}

// die ends a hub. If it does so in order the others hear of it before.
func (w *world) die(h *simHub, inOrder bool) {
	h.dead = true
	wait := 3 * time.Second
	if inOrder {
		wait = 0
	}
	w.after(wait, func() {
		for _, other := range w.alive() {
			if inOrder {
				other.do(other.follower.Left(h.id, w.now, w.params.Grace))
			} else {
				other.do(other.follower.Gone(h.id))
			}
		}
	})
}

func TestSimulation(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			grace := time.Duration(seed%3) * 500 * time.Millisecond
			limit := 1000
			if seed%4 == 3 {
				limit = 30
			}
			w := newWorld(t, seed, Params{Grace: grace, Limit: limit}, 3)
			for round := range 12 {
				w.faulty = round%2 == 1
				for range 100 {
					w.act()
					w.run(time.Duration(w.rng.IntN(8)) * time.Millisecond)
				}
				if w.rng.IntN(4) == 0 {
					w.die(w.any(), w.rng.IntN(2) == 0)
					w.start()
				}
				if w.faulty {
					w.restore()
				}
				w.run(5 * time.Second)
				w.agree()
			}
		})
	}
}

// Followers that hear the same make the same changes.
func TestSameChanges(t *testing.T) {
	w := newWorld(t, 1, Params{Grace: time.Second, Limit: 1000}, 3)
	for range 500 {
		w.act()
		w.run(3 * time.Millisecond)
	}
	w.run(3 * time.Second)
	require.Greater(t, len(w.hubs[0].changes), 10)
	strip := func(all []*Change) (list []Change) {
		for _, c := range all[1:] { // after the first list
			c := *c
			c.Number = 0
			list = append(list, c)
		}
		return list
	}
	require.Equal(t, strip(w.hubs[0].changes), strip(w.hubs[1].changes))
	require.Equal(t, strip(w.hubs[0].changes), strip(w.hubs[2].changes))
}
