package rediscontract

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/hubstest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// requirePartial checks that the time for a question was over, and returns what
// its error says.
func requirePartial(t testing.TB, err error) *fanout.PartialError {
	t.Helper()
	var partial *fanout.PartialError
	require.ErrorAs(t, err, &partial)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	return partial
}

// silent cuts a hub off for as long as a question takes, so that the servers
// and the other hubs take it for there.
func (x *across) silent(t *testing.T) {
	members := x.everywhere(t, "silent")
	s := x.hubs[0].In("silent")
	x.requireCount(t, 3, s)
	cut := time.Now()
	x.nets[2].CutAll()
	defer x.nets[2].HealAll()
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	var asking sync.WaitGroup
	var counted, listed int
	var countErr, listErr error
	asking.Go(func() { counted, countErr = s.Count(ctx) })
	asking.Go(func() { listed, listErr = length(s.Members(ctx)) })
	asking.Wait()
	require.Equal(t, 2, counted)
	require.Equal(t, 2, listed)
	for _, err := range []error{countErr, listErr} {
		partial := requirePartial(t, err)
		require.Len(t, partial.Silent, 1, err)
		require.Equal(t, x.hubs[2].ID(), partial.Silent[0].ID)
		// It is probed every second.
		require.WithinRange(t, partial.Silent[0].Since, cut.Add(-5*time.Second), cut.Add(time.Second))
	}
	x.nets[2].HealAll()
	require.Eventually(t, func() bool {
		n, err := s.Count(x.context(t))
		return n == len(members) && err == nil
	}, 20*time.Second, 50*time.Millisecond, "it answers again")
	require.NoError(t, s.Close(x.context(t), "end"))
}

// replies asks, and returns how many have answered.
func replies(ctx context.Context, t testing.TB, s fanout.Selection) (n int, err error) {
	for r, err := range s.Ask(ctx, []byte("well?")) {
		if err != nil {
			return n, err
		}
		require.Equal(t, r.Member, string(r.Data))
		n++
	}
	return n, nil
}

func (x *across) unanswered(t *testing.T) {
	members := x.everywhere(t, "unanswered")
	hubstest.Answer(t, members[:2]...)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	n, err := replies(ctx, t, x.hubs[0].In("unanswered"))
	require.Equal(t, 2, n)
	require.Equal(t, 1, requirePartial(t, err).Unanswered)
	require.NoError(t, members[2].Close())
}

// hubLeaves closes a hub whose member has got a question.
func (x *across) hubLeaves(t *testing.T) {
	hubstest.Answer(t, x.everywhere(t, "hub leaves")...)
	h := x.newHub(t, len(x.hubs))
	m, err := h.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, h.Room("hub leaves").Join(x.context(t), m))
	s := x.hubs[0].In("hub leaves")
	require.Eventually(t, func() bool { return x.hubs[0].Stats().Hubs == 4 }, 20*time.Second, 10*time.Millisecond)
	closed := make(chan error)
	go func() {
		_, err := m.Receive(x.context(t)) // the question
		if err == nil {
			err = h.Close(x.context(t))
		}
		closed <- err
	}()
	n, err := replies(x.context(t), t, s)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.NoError(t, <-closed)
	x.requireCount(t, 3, s)
}

// local asks a hub about itself while it is cut off: that needs no other hub.
func (x *across) local(t *testing.T) {
	members := x.everywhere(t, "local")
	hubstest.Answer(t, members...)
	s := x.hubs[1].In("local").Local()
	x.nets[1].CutAll()
	defer x.nets[1].HealAll()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n, err := s.Count(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	for m, err := range s.Members(ctx) {
		require.NoError(t, err)
		require.Equal(t, members[1].ID(), m.ID)
	}
	n, err = replies(ctx, t, s)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.NoError(t, s.Close(ctx, "end"))
	<-members[1].Done()
	x.nets[1].HealAll()
	require.Eventually(t, func() bool {
		n, err := x.hubs[1].In("local").Count(x.context(t))
		return n == 2 && err == nil
	}, 20*time.Second, 50*time.Millisecond, "the others are there")
}

// otherPrefix tests a hub of another application on the same servers, in rooms
// of the same names.
func (x *across) otherPrefix(t *testing.T) {
	other := x.newHubOf(t, "across other", new(redistest.Net))
	m, err := other.Connect(&fanout.MemberOptions{User: "ann"})
	require.NoError(t, err)
	for _, room := range []string{"shared", "shared, watched"} {
		require.NoError(t, other.Room(room).Join(x.context(t), m))
	}
	ann, bob := x.enter(t, 0, "shared", "ann"), x.enter(t, 1, "shared, watched", "bob")
	require.NoError(t, x.hubs[1].Room("shared").Join(x.context(t), bob))
	t.Log("it sees itself alone")
	for _, s := range []fanout.Selection{other.In("shared"), other.User("ann"), other.Everyone()} {
		x.requireCount(t, 1, s)
	}
	hubs, err := length(other.Hubs(x.context(t)))
	require.NoError(t, err)
	require.Equal(t, 1, hubs)
	x.requireCount(t, 0, other.User("bob"))
	require.NoError(t, other.User("bob").Close(x.context(t), "of another application"))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	n, err := other.To(ann.ID()).Count(ctx)
	require.Zero(t, n)
	if err != nil { // on a backend that does not count receivers, a hub that is named is waited for
		require.Equal(t, ann.ID()[:16], requirePartial(t, err).Silent[0].ID)
	}
	_ = other.To(ann.ID()).Close(ctx, "of another application")
	require.NoError(t, ann.Err())
	t.Log("it is not seen, nor told of anything")
	h := x.hubs[2]
	x.requireCount(t, 2, h.In("shared"))
	x.requireCount(t, 1, h.User("ann"))
	require.NoError(t, h.In("shared").Join(x.context(t), "more"))
	for _, s := range []fanout.Selection{h.In("shared"), h.User("ann"), h.Everyone()} {
		require.NoError(t, s.Publish(x.context(t), []byte("of another application")))
		require.NoError(t, s.Close(x.context(t), "of another application"))
	}
	require.NoError(t, m.Err())
	require.Len(t, m.Rooms(), 2)
	require.NoError(t, other.Room("shared").Publish(x.context(t), []byte("end")))
	for {
		msg, err := m.Receive(x.context(t))
		require.NoError(t, err)
		if c, ok := msg.Presence(); ok {
			require.True(t, c.Count <= 1 && len(c.Joined) <= 1, c)
			continue
		}
		require.Equal(t, "end", string(msg.Data))
		break
	}
}

func (x *across) userCommands(t *testing.T) {
	ann := []*fanout.Member{x.enter(t, 0, "users", "ann"), x.enter(t, 1, "users", "ann")}
	bob := x.enter(t, 1, "users", "bob")
	s := x.hubs[2].User("ann")
	x.requireCount(t, 2, s)
	require.NoError(t, s.Join(x.context(t), "ann's", "users"))
	require.NoError(t, s.Leave(x.context(t), "users", "never there"))
	for _, m := range ann {
		require.Equal(t, []string{"ann's"}, m.Rooms())
	}
	x.requireCount(t, 2, x.hubs[1].In("ann's"))
	require.Equal(t, []string{"users"}, bob.Rooms())
	require.NoError(t, s.Close(x.context(t), "logout"))
	x.requireCount(t, 0, s)
	for _, m := range ann {
		require.Empty(t, m.Rooms())
		_, err := m.Receive(x.context(t))
		var closed *fanout.ClosedError
		require.ErrorAs(t, err, &closed)
		require.Equal(t, "logout", closed.Reason)
	}
	require.NoError(t, bob.Err())
	require.NoError(t, bob.Close())
}

// arrivals makes 300 members join within a moment, slowly enough for each to be
// announced by itself.
func (x *across) arrivals(t *testing.T) {
	const room = "arrivals, watched"
	l := hubstest.Watch(t, x.enter(t, 0, room, "watcher"))
	var members []*fanout.Member
	for i := range x.hubs {
		x.enter(t, i, room, "") // it is subscribed
		for range 100 {
			m, err := x.hubs[i].Connect(nil)
			require.NoError(t, err)
			members = append(members, m)
		}
	}
	people := func(want int) {
		t.Helper()
		require.Eventually(t, func() bool { return l.Len() == want }, 20*time.Second, 5*time.Millisecond)
	}
	people(4)
	before := l.Notices()
	began := time.Now()
	for i, m := range members {
		require.NoError(t, x.hubs[i/100].Room(room).Join(x.context(t), m))
		time.Sleep(time.Millisecond)
	}
	people(304)
	took := time.Since(began)
	after := l.Notices()
	// Each hub announces at once, and then every 180 ms.
	require.LessOrEqual(t, after-before, 3*(2+int(took/(180*time.Millisecond))))
	t.Logf("%d people came within %v: %d notices", len(members), took, after-before)
	require.NoError(t, x.hubs[1].In(room).Close(x.context(t), "end"))
}

// subscriptions looks on the servers at what a hub has subscribed to.
func (x *across) subscriptions(t *testing.T) {
	const prefix = "across closing"
	servers := x.client(t)
	subscribed := func() (all []string) {
		for _, node := range servers.Nodes() {
			for _, what := range []string{"CHANNELS", "SHARDCHANNELS"} {
				list, err := node.Do(x.context(t), node.B().Arbitrary("PUBSUB", what, prefix+":*").Build()).AsStrSlice()
				require.NoError(t, err)
				all = append(all, list...)
			}
		}
		return all
	}
	h := x.newHubOf(t, prefix, new(redistest.Net))
	for i, room := range []string{"plain", "kept", "watched", "{}*?"} {
		m, err := h.Connect(&fanout.MemberOptions{User: fmt.Sprint("user ", i)})
		require.NoError(t, err)
		require.NoError(t, h.Room(room).Join(x.context(t), m))
	}
	x.requireCount(t, 4, h.Everyone())
	require.GreaterOrEqual(t, len(subscribed()), 4+4+2, "rooms, users, and those of the hub itself")
	require.NoError(t, h.Close(x.context(t)))
	require.Eventually(t, func() bool { return len(subscribed()) == 0 }, 20*time.Second, 10*time.Millisecond)
}
