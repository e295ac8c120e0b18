// Package hubstest tests what hubs on one backend ask and command each other:
// what the methods of fanout.Selection and fanout.Hub promise of other hubs,
// written once for all backends. Tests that need faults of a backend, such as a
// hub that is cut off, are in the backend's package.
package hubstest

import (
	"context"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

// A Backend is a backend under test.
type Backend struct {
	// Open returns the adapter of a hub, and a function that breaks its links
	// for a moment.
	Open func(testing.TB) (a adapter.Adapter, breakLinks func())
	// Move gives a channel to another server. It is nil where channels have no
	// server of their own.
	Move func(ctx context.Context, channel string) error
}

// promises are tested one by one, each with three hubs and a prefix of its own.
var promises = []struct {
	name string
	test func(t *testing.T, x *hubs)
}{
	{"all members are listed and counted, those of a room or a user, one, and those here", lists},
	{"members join, leave and are closed: all, those of a room or a user, one", commands},
	{"a question that selects no member is complete at once", nobody},
	{"questions leave nothing behind", leftovers},
	{"no name changes how a message or question travels", names},
	{"hubs of two releases answer each other", releases},
	{"a person who comes back within the grace period is no event, on the same hub and on others", grace},
	{"lists and changes agree with Members, and with who is in the room", presence},
	{"questions are answered while the room moves", moving},
}

// Run tests hubs on a backend. Each of its subtests calls backend. With
// parallel they run in parallel; servers on a busy machine are too slow for
// that.
func Run(t *testing.T, parallel bool, backend func(*testing.T) *Backend) {
	for i, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			if parallel {
				t.Parallel()
			}
			x := &hubs{backend: backend(t), prefix: fmt.Sprint("hubstest ", i)}
			for range 3 {
				x.open(t, nil)
			}
			x.ready(t)
			p.test(t, x)
		})
	}
}

// hubs are those of one test.
type hubs struct {
	backend *Backend
	prefix  string
	all     []*fanout.Hub
	breaks  []func() // breaks the links of a hub for a moment
}

// watchedGrace is the grace period of rooms with presence, whose names begin
// with "watched".
const watchedGrace = 2 * time.Second

// label is the label of goroutines of hubs: its value is their prefix.
const label = "hubstest"

// open adds a hub, whose adapter is wrapped unless wrap is nil.
func (x *hubs) open(t testing.TB, wrap func(adapter.Adapter) adapter.Adapter) {
	t.Helper()
	pprof.Do(context.Background(), pprof.Labels(label, x.prefix), func(context.Context) {
		a, breakLinks := x.backend.Open(t)
		if wrap != nil {
			a = wrap(a)
		}
		h, err := fanout.New(a, &fanout.Options{
			Prefix: x.prefix, PublishTimeout: 20 * time.Second,
			Room: func(name string) fanout.RoomOptions {
				return fanout.RoomOptions{Presence: strings.HasPrefix(name, "watched"), Grace: watchedGrace}
			},
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, h.Close(within(t))) })
		x.all, x.breaks = append(x.all, h), append(x.breaks, breakLinks)
	})
}

// ready waits until all hubs know each other. On a backend that does not count
// receivers, a hub asks those that it knows.
func (x *hubs) ready(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		return !slices.ContainsFunc(x.all, func(h *fanout.Hub) bool { return h.Stats().Hubs != len(x.all) })
	}, 20*time.Second, 5*time.Millisecond)
}

// within returns a context that is long enough for what should happen.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// enter connects a user to a hub, and joins the member to rooms. When it
// returns, all channels of the member are subscribed.
func (x *hubs) enter(t testing.TB, hub int, user string, rooms ...string) *fanout.Member {
	t.Helper()
	return enter(t, x.all[hub], user, rooms...)
}

func enter(t testing.TB, h *fanout.Hub, user string, rooms ...string) *fanout.Member {
	t.Helper()
	m, err := h.Connect(&fanout.MemberOptions{User: user})
	require.NoError(t, err)
	for _, room := range rooms {
		require.NoError(t, h.Room(room).Join(within(t), m))
	}
	require.NoError(t, h.Ready(within(t)))
	return m
}

func ids(members ...*fanout.Member) (list []string) {
	for _, m := range members {
		list = append(list, m.ID())
	}
	return list
}

// requireMembers checks the IDs that Members yields, and what Count says.
func requireMembers(t testing.TB, s fanout.Selection, want []string, what ...any) {
	t.Helper()
	var got []string
	for m, err := range s.Members(within(t)) {
		require.NoError(t, err, what...)
		got = append(got, m.ID)
	}
	require.ElementsMatch(t, want, got, what...)
	n, err := s.Count(within(t))
	require.NoError(t, err, what...)
	require.Equal(t, len(want), n, what...)
}

// requireReceived checks the next messages of a member.
func requireReceived(t testing.TB, m *fanout.Member, want ...string) {
	t.Helper()
	for _, text := range want {
		msg, err := m.Receive(within(t))
		require.NoError(t, err)
		require.Equal(t, text, string(msg.Data))
	}
}
