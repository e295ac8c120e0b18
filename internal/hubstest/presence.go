package hubstest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A List is the list of who is in a room with presence, as a member has
// received it: a list, and the changes since.
type List struct {
	mu      sync.Mutex // guards all below
	people  map[string]string
	count   int // of connections, as the last change says
	notices int
	left    []string // all that have ever left
	wrong   []string // changes that did not fit
}

// Watch returns the list of a member, which receives until it ends.
func Watch(t testing.TB, m *fanout.Member) *List {
	l := new(List)
	var done sync.WaitGroup
	done.Go(func() {
		for msg, err := range m.Messages(context.Background()) {
			if c, ok := msg.Presence(); ok && err == nil {
				l.apply(&c)
			}
		}
	})
	t.Cleanup(func() { _ = m.Close(); done.Wait() })
	return l
}

func (l *List) apply(c *fanout.PresenceChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notices++
	l.count = c.Count
	if !c.Reset && l.people == nil {
		l.wrong = append(l.wrong, "a change came before the list")
	}
	if c.Reset || l.people == nil {
		l.people = make(map[string]string)
	}
	for _, p := range c.Joined {
		if _, there := l.people[nameOf(p)]; there {
			l.wrong = append(l.wrong, "joined, and was there: "+nameOf(p))
		}
		l.people[nameOf(p)] = string(p.Info)
	}
	for _, p := range c.Updated {
		if _, there := l.people[nameOf(p)]; !there {
			l.wrong = append(l.wrong, "updated, and was not there: "+nameOf(p))
		}
		l.people[nameOf(p)] = string(p.Info)
	}
	for _, p := range c.Left {
		if _, there := l.people[nameOf(p)]; !there {
			l.wrong = append(l.wrong, "left, and was not there: "+nameOf(p))
		}
		delete(l.people, nameOf(p))
		l.left = append(l.left, nameOf(p))
	}
}

func nameOf(p fanout.Person) string { return p.User + p.Member }

// Names returns who is there, in order: users, and the IDs of members without
// one.
func (l *List) Names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.people))
}

// Len returns the number of those that are there.
func (l *List) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.people)
}

// Count returns the number of connections that the last change tells of.
func (l *List) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Notices returns the number of changes that have come, with the list.
func (l *List) Notices() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.notices
}

// Left returns all that have ever left.
func (l *List) Left() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.left)
}

// check returns an error if the list is not as it should be.
func (l *List) check(want map[string]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) > 0 {
		return fmt.Errorf("changes did not fit: %v", l.wrong)
	}
	if !maps.Equal(l.people, want) {
		return fmt.Errorf("the list has %v, and there are %v", l.people, want)
	}
	return nil
}

// grace makes persons come back in all ways. When the one that does not come
// back is announced as left, those that left before it would have been
// announced, too.
func grace(t *testing.T, x *hubs) {
	const room = "watched"
	l := Watch(t, x.enter(t, 0, "watcher", room))
	ann, bob, cat, dan := x.enter(t, 1, "ann", room), x.enter(t, 1, "bob", room), x.enter(t, 1, "cat", room), x.enter(t, 1, "dan", room)
	there := []string{"ann", "bob", "cat", "dan", "watcher"}
	require.Eventually(t, func() bool { return slices.Equal(there, l.Names()) }, 20*time.Second, 5*time.Millisecond)
	before, began := l.Notices(), time.Now()
	require.NoError(t, ann.Close())
	require.NoError(t, bob.Close())
	require.NoError(t, x.all[1].Room(room).Leave(within(t), cat))
	require.NoError(t, dan.Close())
	x.enter(t, 1, "eve", room) // what went before her has been announced when she is
	require.Eventually(t, func() bool { return slices.Contains(l.Names(), "eve") }, 20*time.Second, time.Millisecond)
	x.enter(t, 1, "ann", room)
	x.enter(t, 2, "bob", room)
	require.NoError(t, x.all[1].Room(room).Join(within(t), cat))
	require.Eventually(t, func() bool { return len(l.Left()) > 0 }, 20*time.Second, 5*time.Millisecond)
	require.GreaterOrEqual(t, time.Since(began), watchedGrace, "a person is waited for until the grace period is over")
	require.Equal(t, []string{"dan"}, l.Left())
	require.Equal(t, before+2, l.Notices())
	require.Equal(t, []string{"ann", "bob", "cat", "eve", "watcher"}, l.Names())
}

// presence makes people come and go at random, while links break, and compares
// what all members know at moments at which nobody moves.
func presence(t *testing.T, x *hubs) {
	w := &walk{T: t, hubs: x, dice: rand.New(rand.NewPCG(1, 2)), lists: make(map[*fanout.Member]*List)}
	for range 4 {
		for range 40 {
			w.step()
		}
		w.compare()
	}
	w.count()
}

// A walk is people who come and go at random.
type walk struct {
	*testing.T
	*hubs
	dice    *rand.Rand
	members []*fanout.Member
	info    []string
	lists   map[*fanout.Member]*List
}

const walkRoom = "watched, at random"

func (w *walk) step() {
	i := 0
	if len(w.members) > 0 {
		i = w.dice.IntN(len(w.members))
	}
	switch n := w.dice.IntN(20); {
	case n < 7 || len(w.members) < 3:
		w.come(w.dice.IntN(len(w.all)), []string{"", "ann", "bob", "cat", "dan"}[w.dice.IntN(5)])
	case n < 10:
		w.leave(i)
	case n < 13: // a page is reloaded, and has another hub
		user := w.members[i].User()
		w.leave(i)
		w.come(w.dice.IntN(len(w.all)), user)
	case n < 15:
		m, room := w.members[i], w.of(w.members[i]).Room(walkRoom)
		require.NoError(w, room.Leave(within(w), m))
		require.NoError(w, room.Join(within(w), m))
	case n < 18:
		if w.members[i].User() == "" { // others share their Info
			w.info[i] = fmt.Sprint("info ", w.dice.Int())
			require.NoError(w, w.members[i].SetInfo([]byte(w.info[i])))
		}
	case n < 19:
		w.breaks[w.dice.IntN(len(w.breaks))]()
	default:
		time.Sleep(time.Duration(w.dice.IntN(50)) * time.Millisecond)
	}
}

func (w *walk) come(hub int, user string) {
	m := w.enter(w, hub, user, walkRoom)
	w.members, w.info = append(w.members, m), append(w.info, "")
	if w.dice.IntN(2) == 0 {
		w.lists[m] = Watch(w, m)
	}
}

func (w *walk) leave(i int) {
	require.NoError(w, w.members[i].Close())
	delete(w.lists, w.members[i])
	w.members, w.info = slices.Delete(w.members, i, i+1), slices.Delete(w.info, i, i+1)
}

// compare waits until all know who is in the room.
func (w *walk) compare() {
	want := make(map[string]string)
	for i, m := range w.members {
		if m.User() == "" {
			want[m.ID()] = w.info[i]
		} else {
			want[m.User()] = ""
		}
	}
	require.EventuallyWithT(w, func(c *assert.CollectT) { assert.NoError(c, w.check(want)) }, 20*time.Second, 5*time.Millisecond, "all know who is there")
}

// count has guests look in until one is told how many connections there are.
// Some that have ended may count until the grace period is over.
func (w *walk) count() {
	want := len(w.members) + 1
	for began, told := time.Now(), 0; told != want; {
		require.Less(w, time.Since(began), 20*time.Second, "a guest is told of %d connections, and there are %d", told, want)
		guest := w.enter(w, w.dice.IntN(len(w.all)), "", walkRoom)
		l := Watch(w, guest)
		require.Eventually(w, func() bool { return slices.Contains(l.Names(), guest.ID()) }, 20*time.Second, 5*time.Millisecond, "it is in its own list")
		told = l.Count()
		require.NoError(w, guest.Close())
	}
}

// check returns an error if a member or hub does not know who is in the room.
func (w *walk) check(want map[string]string) error {
	for _, l := range w.lists {
		if err := l.check(want); err != nil {
			return err
		}
	}
	for i, h := range w.all {
		connections, people := 0, make(map[string]string)
		for m, err := range h.In(walkRoom).Members(within(w)) {
			if err != nil {
				return err
			}
			connections++
			name := m.User
			if name == "" {
				name = m.ID
			}
			people[name] = string(m.Info)
		}
		if connections != len(w.members) || !maps.Equal(people, want) {
			return fmt.Errorf("hub %d lists %d members, %v; there are %d, %v", i, connections, people, len(w.members), want)
		}
	}
	return nil
}
