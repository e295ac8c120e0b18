package rediscontract

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/stretchr/testify/require"
)

// A list is who is in a room, as a member has received it.
type list struct {
	mu      sync.Mutex
	people  map[string]bool
	notices int
}

func (l *list) apply(c *fanout.PresenceChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notices++
	if c.Reset {
		l.people = make(map[string]bool)
	}
	for _, p := range c.Joined {
		l.people[p.User+p.Member] = true
	}
	for _, p := range c.Left {
		delete(l.people, p.User+p.Member)
	}
}

func (l *list) get() (names []string, notices int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.people)), l.notices
}

func (l *list) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.people)
}

// watch returns the list of a member, which receives until it ends.
func watch(t *testing.T, m *fanout.Member) *list {
	l := new(list)
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

func (x *across) enter(t *testing.T, hub int, room, user string) *fanout.Member {
	h := x.hubs[hub]
	m, err := h.Connect(&fanout.MemberOptions{User: user})
	require.NoError(t, err)
	require.NoError(t, h.Room(room).Join(x.context(t), m))
	return m
}

// presence tests who is in a room with presence. At the end a hub is closed, if
// closes says so.
func (x *across) presence(t *testing.T, room string, closes bool) {
	var lists []*list
	names := []string{"ann", "bob", "cat"}
	for i, name := range names {
		lists = append(lists, watch(t, x.enter(t, i, room, name)))
	}
	agree := func(want ...string) {
		t.Helper()
		for i, l := range lists {
			require.Eventually(t, func() bool { got, _ := l.get(); return slices.Equal(want, got) },
				20*time.Second, 5*time.Millisecond, "list %d", i)
		}
		var users []string
		for u, err := range x.hubs[0].In(room).Users(x.context(t)) {
			require.NoError(t, err)
			users = append(users, u.User)
		}
		require.ElementsMatch(t, want, users, "and Users says the same")
	}
	agree(names...)
	t.Log("a second connection, and one that comes back on another hub, are no events")
	_, before := lists[0].get()
	second := x.enter(t, 1, room, "ann")
	require.NoError(t, second.Close())
	dan := x.enter(t, 1, room, "dan")
	agree("ann", "bob", "cat", "dan")
	require.NoError(t, dan.Close())
	dan = x.enter(t, 2, room, "dan")
	time.Sleep(time.Second) // twice the grace period: nothing is to happen
	agree("ann", "bob", "cat", "dan")
	_, after := lists[0].get()
	require.Equal(t, before+1, after)
	require.NoError(t, dan.Close())
	agree(names...)
	if !closes {
		return
	}
	t.Log("a hub that closes takes its people with it, in one step")
	more := []string{"ann", "bob", "cat"}
	for _, user := range []string{"1", "2", "3", "4", "5"} {
		x.enter(t, 2, room, user)
		more = append(more, user)
	}
	slices.Sort(more)
	agree(more...)
	time.Sleep(time.Second) // what is on its way
	_, before = lists[0].get()
	require.NoError(t, x.hubs[2].Close(x.context(t)))
	lists = lists[:2]
	agree("ann", "bob")
	_, after = lists[0].get()
	require.Equal(t, before+1, after)
}
