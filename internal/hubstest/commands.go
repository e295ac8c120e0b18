package hubstest

import (
	"bytes"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/stretchr/testify/require"
)

// profile returns the stacks of all goroutines.
func profile(t testing.TB) string {
	var b bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&b, 1))
	return b.String()
}

// commands has each hub move and close members on all hubs.
func commands(t *testing.T, x *hubs) {
	for i, h := range x.all {
		for _, which := range []string{"all", "a room", "a user", "one"} {
			t.Logf("hub %d commands %s", i, which)
			var ann, bob, cat []*fanout.Member
			for hub := range x.all {
				ann = append(ann, x.enter(t, hub, "ann", "room"))
				bob = append(bob, x.enter(t, hub, "bob", "room"))
				cat = append(cat, x.enter(t, hub, ""))
			}
			there := slices.Concat(ann, bob, cat)
			s, chosen := h.Everyone(), there
			switch which {
			case "a room":
				s, chosen = h.In("room"), slices.Concat(ann, bob)
			case "a user":
				s, chosen = h.User("ann"), ann
			case "one":
				one := cat[(i+1)%3]
				s, chosen = h.To(one.ID()), []*fanout.Member{one}
			}
			c := &command{hubs: x, s: s, chosen: chosen, other: x.all[(i+2)%3]}
			for _, m := range there {
				if !slices.Contains(chosen, m) {
					c.rest = append(c.rest, m)
				}
			}
			c.run(t)
			for _, m := range c.rest {
				require.NoError(t, m.Err(), which)
				require.NoError(t, m.Close())
			}
		}
	}
}

// A command is for some members, and not for the rest.
type command struct {
	*hubs
	s            fanout.Selection
	chosen, rest []*fanout.Member
	other        *fanout.Hub // not the one that commands
}

func (c *command) run(t *testing.T) {
	t.Helper()
	require.NoError(t, c.s.Join(within(t), "new", "newer"))
	for _, m := range c.chosen {
		require.Subset(t, m.Rooms(), []string{"new", "newer"})
	}
	for _, m := range c.rest {
		require.NotContains(t, m.Rooms(), "new")
	}
	requireMembers(t, c.other.In("new"), ids(c.chosen...))
	require.NoError(t, c.other.Room("new").Publish(within(t), []byte("welcome")), "joined means joined")
	for _, m := range c.chosen {
		requireReceived(t, m, "welcome")
	}
	for range 2 { // to leave again is harmless
		require.NoError(t, c.s.Leave(within(t), "new", "never there"))
		for _, m := range c.chosen {
			require.NotContains(t, m.Rooms(), "new")
			require.Contains(t, m.Rooms(), "newer")
			require.NoError(t, c.of(m).Room("new").Leave(within(t), m))
		}
	}
	requireMembers(t, c.other.In("new"), nil)
	require.NoError(t, c.s.Publish(within(t), []byte("goodbye")))
	require.NoError(t, c.s.Close(within(t), "that is all"))
	requireMembers(t, c.other.In("newer"), nil)
	for _, m := range c.chosen {
		require.Empty(t, m.Rooms())
		require.ErrorIs(t, c.of(m).Room("new").Join(within(t), m), fanout.ErrClosed)
		requireReceived(t, m, "goodbye")
		_, err := m.Receive(within(t))
		closed := new(fanout.ClosedError)
		require.ErrorAs(t, err, &closed)
		require.Equal(t, &fanout.ClosedError{Reason: "that is all"}, closed)
		require.NoError(t, m.Close())
	}
	require.NoError(t, c.s.Close(within(t), "again"))
}

// of returns the hub of a member.
func (x *hubs) of(m *fanout.Member) *fanout.Hub {
	id, _, _ := strings.Cut(m.ID(), "-")
	return x.all[slices.IndexFunc(x.all, func(h *fanout.Hub) bool { return h.ID() == id })]
}
