package rediscontract

import (
	"slices"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/hubstest"
	"github.com/stretchr/testify/require"
)

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
	var lists []*hubstest.List
	names := []string{"ann", "bob", "cat"}
	for i, name := range names {
		lists = append(lists, hubstest.Watch(t, x.enter(t, i, room, name)))
	}
	agree := func(want ...string) {
		t.Helper()
		for i, l := range lists {
			require.Eventually(t, func() bool { return slices.Equal(want, l.Names()) },
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
	before := lists[0].Notices()
	second := x.enter(t, 1, room, "ann")
	require.NoError(t, second.Close())
	dan := x.enter(t, 1, room, "dan")
	agree("ann", "bob", "cat", "dan")
	require.NoError(t, dan.Close())
	dan = x.enter(t, 2, room, "dan")
	time.Sleep(time.Second) // twice the grace period: nothing is to happen
	agree("ann", "bob", "cat", "dan")
	after := lists[0].Notices()
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
	before = lists[0].Notices()
	require.NoError(t, x.hubs[2].Close(x.context(t)))
	lists = lists[:2]
	agree("ann", "bob")
	after = lists[0].Notices()
	require.Equal(t, before+1, after)
}
