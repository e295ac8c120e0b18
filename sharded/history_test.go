package sharded_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// keeping returns a hub whose rooms keep so many messages.
func keeping(t testing.TB, client rueidis.Client, messages int) *fanout.Hub {
	t.Helper()
	a, err := newAdapter(client)
	require.NoError(t, err)
	o := new(fanout.Options)
	if messages > 0 {
		o.Retain = func(string) fanout.Retention { return fanout.Retention{Messages: messages, Age: time.Hour} }
	}
	h, err := fanout.New(a, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := h.Close(within(t)); err != nil {
			t.Error(err)
		}
	})
	return h
}

func say(t testing.TB, r *fanout.Room, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		require.NoError(t, r.Publish(within(t), fmt.Append(nil, n)))
	}
}

// hear takes n messages and fails at a gap.
func hear(t testing.TB, m *fanout.Member, n int) (texts []string, at fanout.Position) {
	t.Helper()
	for range n {
		msg, err := m.Receive(within(t))
		require.NoError(t, err)
		require.True(t, at.Before(msg.Position))
		texts, at = append(texts, string(msg.Data)), msg.Position
	}
	return texts, at
}

func count(first, last int) (list []string) {
	for n := first; n <= last; n++ {
		list = append(list, fmt.Sprint(n))
	}
	return list
}

func member(t testing.TB, h *fanout.Hub) *fanout.Member {
	t.Helper()
	m, err := h.Connect(nil)
	require.NoError(t, err)
	return m
}

// onAll runs a test on each of the servers.
func onAll(t *testing.T, f func(t *testing.T, c *redistest.Cluster)) {
	for name, cluster := range map[string]func(testing.TB) *redistest.Cluster{"Redis 7.0": cluster70, "Redis 8.0": cluster, "Valkey 8.1": valkey} {
		t.Run(name, func(t *testing.T) { f(t, cluster(t)) })
	}
}

func TestHistory(t *testing.T) {
	onAll(t, func(t *testing.T, c *redistest.Cluster) {
		a, b := keeping(t, c.Client(t), 20), keeping(t, c.Client(t), 20)
		name := "history of " + t.Name()
		live := member(t, a)
		require.NoError(t, a.Room(name).Join(within(t), live))
		say(t, b.Room(name), 1, 10)
		got, at := hear(t, live, 10)
		require.Equal(t, count(1, 10), got)
		say(t, a.Room(name), 11, 25)

		m := member(t, b)
		require.NoError(t, b.Room(name).Resume(within(t), m, at))
		say(t, b.Room(name), 26, 30)
		got, _ = hear(t, m, 20)
		require.Equal(t, count(11, 30), got)

		say(t, b.Room(name), 31, 50)
		all, err := a.Room(name).History(within(t), at, 5)
		require.Equal(t, &fanout.GapError{Room: name, Missed: 20}, err)
		require.Len(t, all, 5)
		require.Equal(t, "31", string(all[0].Data))

		// Not even the functions are needed to be there.
		for _, n := range c.Primaries() {
			require.NoError(t, n.Do(within(t), "FUNCTION", "FLUSH").Error())
			require.NoError(t, n.Do(within(t), "SCRIPT", "FLUSH").Error())
		}
		say(t, a.Room(name), 51, 60)
		got, _ = hear(t, m, 30)
		require.Equal(t, count(31, 60), got)
		got, _ = hear(t, live, 50)
		require.Equal(t, count(11, 60), got)
		require.Zero(t, a.Stats().Missed)
	})
}
