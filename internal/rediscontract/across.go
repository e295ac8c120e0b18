package rediscontract

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/hubstest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// RunAcross tests what three hubs ask and command each other, on the servers of
// a client. It runs the tests of package hubstest, and tests with faults of the
// hubs' links. Move may be nil; see [hubstest.Backend].
func RunAcross(t *testing.T, client func(testing.TB, ...func(*rueidis.ClientOption)) rueidis.Client, newAdapter NewAdapter, move func(ctx context.Context, channel string) error) {
	t.Run("as on any backend", func(t *testing.T) {
		hubstest.Run(t, false, func(*testing.T) *hubstest.Backend {
			return &hubstest.Backend{Move: move, Open: func(t testing.TB) (adapter.Adapter, func()) {
				net := new(redistest.Net)
				a, err := newAdapter(client(t, net.Option()))
				require.NoError(t, err)
				return a, func() { net.ResetAll(); net.HealAll() }
			}}
		})
	})
	x := &across{T: t, client: client, newAdapter: newAdapter}
	for i := range x.hubs {
		x.hubs[i] = x.newHub(t, i)
	}
	// A backend that does not count asks the hubs that it knows of.
	require.Eventually(t, func() bool {
		return !slices.ContainsFunc(x.hubs[:], func(h *fanout.Hub) bool { return h.Stats().Hubs != len(x.hubs) })
	}, 20*time.Second, 10*time.Millisecond)
	t.Run("selections", x.selections)
	t.Run("a room with a history", x.kept)
	t.Run("ask", x.ask)
	t.Run("close", x.close)
	t.Run("members that end", x.leaving)
	t.Run("a hub that is silent is named, with since when, and the answers of others come", x.silent)
	t.Run("members that have not answered in time are counted, and the answers of others come", x.unanswered)
	t.Run("a hub that leaves during a question does not fail the rest", x.hubLeaves)
	t.Run("a local question needs nobody else", x.local)
	t.Run("a user's connections join, leave and are closed, on all hubs", x.userCommands)
	t.Run("300 who arrive at once are a handful of notices", x.arrivals)
	t.Run("many members", x.many)
	t.Run("presence and a history", func(t *testing.T) { x.presence(t, "kept and watched", false) })
	t.Run("hubs with another prefix see nothing, and are not seen", x.otherPrefix)
	t.Run("a hub that is closed leaves no subscription", x.subscriptions)
	t.Run("presence", func(t *testing.T) { x.presence(t, "watched", true) })
}

type across struct {
	*testing.T
	client     func(testing.TB, ...func(*rueidis.ClientOption)) rueidis.Client
	newAdapter NewAdapter
	hubs       [3]*fanout.Hub
	nets       []*redistest.Net // of the hubs
}

// newHub returns the i-th hub, whose network is x.nets[i].
func (x *across) newHub(t testing.TB, i int) *fanout.Hub {
	x.nets = append(x.nets[:i], new(redistest.Net))
	return x.newHubOf(t, "across", x.nets[i])
}

func (x *across) newHubOf(t testing.TB, prefix string, net *redistest.Net) *fanout.Hub {
	a, err := x.newAdapter(x.client(t, net.Option()))
	require.NoError(t, err)
	h, err := fanout.New(a, &fanout.Options{
		Prefix: prefix, PublishTimeout: 20 * time.Second,
		Room: func(name string) (o fanout.RoomOptions) {
			if strings.HasPrefix(name, "kept") {
				o.Retain = fanout.Retention{Messages: 100}
			}
			if strings.HasSuffix(name, "watched") {
				o.Presence, o.Grace = true, 500*time.Millisecond
			}
			return o
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		net.HealAll()
		require.NoError(t, h.Close(context.Background()))
	})
	return h
}

func (x *across) context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// everywhere returns a member of each hub that is in a room.
func (x *across) everywhere(t testing.TB, room string) (members []*fanout.Member) {
	for _, h := range x.hubs {
		m, err := h.Connect(&fanout.MemberOptions{Info: []byte("info of " + h.ID())})
		require.NoError(t, err)
		require.NoError(t, h.Room(room).Join(x.context(t), m))
		members = append(members, m)
	}
	return members
}

func (x *across) requireCount(t testing.TB, want int, s fanout.Selection) {
	t.Helper()
	n, err := s.Count(x.context(t))
	require.NoError(t, err)
	require.Equal(t, want, n)
}

func (x *across) selections(t *testing.T) {
	for _, room := range []string{"x", "{a}[]*?%# 🎲", x.hubs[1].ID()} {
		members := x.everywhere(t, room)
		h := x.hubs[0]
		x.requireCount(t, 3, h.In(room))
		for m, err := range h.In(room, "another").Members(x.context(t)) {
			require.NoError(t, err)
			require.Equal(t, "info of "+m.Hub(), string(m.Info))
		}
		x.requireCount(t, 0, h.In(room+"'"))
		require.NoError(t, h.In(room).Join(x.context(t), room+"'"))
		x.requireCount(t, 3, h.In(room+"'"))
		x.requireCount(t, 3, h.In(room, room+"'"))
		require.NoError(t, h.To(members[2].ID()).Leave(x.context(t), room+"'"))
		x.requireCount(t, 2, h.In(room+"'"))
		x.requireCount(t, 3, h.Everyone())
		require.NoError(t, h.Everyone().Close(x.context(t), "end"))
		x.requireCount(t, 0, h.Everyone())
	}
}

// Questions are in no history, and take no numbers.
func (x *across) kept(t *testing.T) {
	members := x.everywhere(t, "kept")
	h := x.hubs[0]
	for i := range 3 {
		require.NoError(t, x.hubs[i].Room("kept").Publish(x.context(t), fmt.Append(nil, i)))
		x.requireCount(t, 3, h.In("kept"))
	}
	require.NoError(t, h.In("kept").Close(x.context(t), "end"))
	for _, m := range members {
		for i := range 3 {
			msg, err := m.Receive(x.context(t))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), string(msg.Data))
		}
		_, err := m.Receive(x.context(t))
		require.ErrorIs(t, err, fanout.ErrClosed)
	}
	kept, err := h.Room("kept").History(x.context(t), fanout.Position{}, 0)
	require.NoError(t, err)
	require.Len(t, kept, 3)
}

func (x *across) ask(t *testing.T) {
	hubstest.Answer(t, x.everywhere(t, "asked")...)
	n, err := replies(x.context(t), t, x.hubs[0].In("asked"))
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

func (x *across) close(t *testing.T) {
	members := x.everywhere(t, "closed")
	for i := range 100 {
		require.NoError(t, x.hubs[0].Room("closed").Publish(x.context(t), fmt.Append(nil, i)))
	}
	require.NoError(t, x.hubs[0].In("closed").Close(x.context(t), "kicked"))
	for i, m := range members {
		require.Empty(t, m.Rooms())
		require.ErrorIs(t, x.hubs[i].Room("closed").Join(x.context(t), m), fanout.ErrClosed)
		for i := range 100 {
			msg, err := m.Receive(x.context(t))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), string(msg.Data))
		}
		_, err := m.Receive(x.context(t))
		var closed *fanout.ClosedError
		require.ErrorAs(t, err, &closed)
		require.Equal(t, "kicked", closed.Reason)
	}
}

func (x *across) leaving(t *testing.T) {
	h := x.hubs[0]
	members := x.everywhere(t, "asked")
	time.AfterFunc(200*time.Millisecond, func() { _ = members[0].Close() })
	time.AfterFunc(400*time.Millisecond, func() { _ = members[1].Close() })
	time.AfterFunc(600*time.Millisecond, func() { _ = members[2].Close() })
	for _, err := range h.In("asked").Ask(x.context(t), nil) {
		require.NoError(t, err)
	}
}

// many has 3 × 1,000 members counted and listed. BenchmarkQuestions of package
// sharded measures how long that takes.
func (x *across) many(t *testing.T) {
	for range 1000 {
		x.everywhere(t, "many")
	}
	h := x.hubs[0]
	for range 5 {
		x.requireCount(t, 3000, h.In("many"))
		n := 0
		for _, err := range h.In("many").Members(x.context(t)) {
			require.NoError(t, err)
			n++
		}
		require.Equal(t, 3000, n)
	}
}
