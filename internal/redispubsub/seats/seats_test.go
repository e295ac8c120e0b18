package seats

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLeaveAndRejoinCross(t *testing.T) {
	tab, leave := in(t, Leaving, false)
	tab.Want("bob", channel, slot)
	require.Empty(t, tab.Next(), "nothing is sent before the reply")
	_, unsolicited := tab.Ended(channel)
	require.False(t, unsolicited, "this is the reply, though bob has the seat")
	_, asked := tab.Confirmed(channel)
	require.False(t, asked)
	tab.Left(leave)
	join := tab.Next()
	require.Len(t, join, 1)
	require.False(t, join[0].Leave)
	s, asked := tab.Confirmed(channel)
	require.True(t, asked)
	require.Equal(t, "bob", s)
}

func TestARejoinThatTheLeaveHasNotLeftFor(t *testing.T) {
	tab, _ := in(t, On, true)
	tab.Release("alice", channel)
	tab.Want("bob", channel, slot)
	commands := tab.Next()
	require.Len(t, commands, 1)
	require.False(t, commands[0].Leave, "bob gets a confirmation of his own")
	tab.Release("alice", channel)
	require.Equal(t, "bob", tab.Subscriber(channel), "alice has nothing left to release")
}

func TestANoticeThatLooksLikeAReply(t *testing.T) {
	tab, _ := in(t, On, true)
	s, unsolicited := tab.Ended(channel)
	require.True(t, unsolicited)
	require.Equal(t, "alice", s)
	c := tab.Next()
	require.Len(t, c, 1, "asking again brings MOVED")
	require.Equal(t, []string{"alice"}, tab.Replied(c[0], Moved))
	require.Empty(t, tab.Next(), "the link finds it another home")
	tab.Release("alice", channel)
	require.Empty(t, tab.Next())
	require.Empty(t, tab.seats)
}

func TestARefusalOfSeveralChannels(t *testing.T) {
	tab := New[string]()
	for _, name := range []string{"a", "b", "c"} {
		tab.Want(name, name, slot)
	}
	commands := tab.Next()
	require.Len(t, commands, 1)
	require.Equal(t, []string{"a", "b", "c"}, commands[0].Channels)
	tab.Release("c", "c")
	require.Empty(t, tab.Replied(commands[0], Refused), "nobody is told before each is asked for alone")
	commands = tab.Next()
	require.Len(t, commands, 2)
	require.Equal(t, []string{"a"}, tab.Replied(commands[0], Refused))
	require.Empty(t, tab.Replied(commands[1], Accepted))
	s, asked := tab.Confirmed("b")
	require.True(t, asked)
	require.Equal(t, "b", s)
	require.NotContains(t, tab.seats, "c")
}

func TestCommands(t *testing.T) {
	t.Run("name one slot", func(t *testing.T) {
		tab := New[string]()
		tab.Want("a", "a", 1)
		tab.Want("b", "b", 2)
		tab.Want("c", "c", 1)
		commands := tab.Next()
		require.Len(t, commands, 2)
		require.Equal(t, []string{"a", "c"}, commands[0].Channels)
		require.Equal(t, []string{"b"}, commands[1].Channels)
	})
	t.Run("are bounded", func(t *testing.T) {
		tab := New[string]()
		for n := range BatchSeats + CommandNames + 1 {
			tab.Want("a", fmt.Sprint(n), 1)
		}
		total := 0
		for _, batch := range []int{BatchSeats / CommandNames, 2, 0} {
			commands := tab.Next()
			require.Len(t, commands, batch)
			for _, c := range commands {
				require.LessOrEqual(t, len(c.Channels), CommandNames)
				total += len(c.Channels)
			}
		}
		require.Equal(t, BatchSeats+CommandNames+1, total)
	})
	t.Run("join and leave in one batch", func(t *testing.T) {
		tab, _ := in(t, On, true)
		tab.Release("alice", channel)
		tab.Want("bob", "other", slot)
		commands := tab.Next()
		require.Len(t, commands, 2)
		require.NotEqual(t, commands[0].Leave, commands[1].Leave)
	})
}

func TestPostponed(t *testing.T) {
	now := time.Unix(1000, 0)
	tab := New[string]()
	tab.Want("a", "a", 1)
	tab.Want("b", "b", 2)
	for _, c := range tab.Next() {
		require.Len(t, tab.Replied(c, NotNow), 1)
	}
	require.Empty(t, tab.Next())
	require.Zero(t, tab.Due())
	tab.Postpone("a", now.Add(2))
	tab.Postpone("b", now.Add(1))
	tab.Postpone("unknown", now)
	require.Equal(t, now.Add(1), tab.Due())
	tab.Resume(now)
	require.Empty(t, tab.Next())
	tab.Resume(now.Add(1))
	commands := tab.Next()
	require.Len(t, commands, 1)
	require.Equal(t, []string{"b"}, commands[0].Channels)
	require.Equal(t, now.Add(2), tab.Due())
	require.ElementsMatch(t, []string{"a", "b"}, tab.Broke())
	require.Zero(t, tab.Due(), "a new connection asks for everything at once")
}

func TestProbe(t *testing.T) {
	name := func(host string) string { return host + ":probe" }
	t.Run("needs a confirmed channel", func(t *testing.T) {
		for _, s := range []State{None, Asked, Again} {
			tab, _ := in(t, s, true)
			probe, added := tab.Probe(name)
			require.Empty(t, probe)
			require.False(t, added, s)
		}
	})
	probing := func(t *testing.T) *Table[string] {
		tab, _ := in(t, On, true)
		probe, added := tab.Probe(name)
		require.Empty(t, probe)
		require.True(t, added)
		return tab
	}
	t.Run("is subscribed in the slot of its host", func(t *testing.T) {
		tab := probing(t)
		commands := tab.Next()
		require.Len(t, commands, 1)
		require.Equal(t, []string{"c:probe"}, commands[0].Channels)
		require.EqualValues(t, slot, tab.seats["c:probe"].slot)
		s, asked := tab.Confirmed("c:probe")
		require.True(t, asked)
		require.Empty(t, s)
		probe, added := tab.Probe(name)
		require.Equal(t, "c:probe", probe)
		require.False(t, added)
	})
	t.Run("is no use by itself", func(t *testing.T) {
		tab := probing(t)
		require.Equal(t, []string{"alice"}, tab.Subscribers())
		tab.Release("alice", channel)
		require.True(t, tab.Unused())
		require.Empty(t, tab.Subscribers())
	})
	t.Run("ends with the connection", func(t *testing.T) {
		tab := probing(t)
		require.Equal(t, []string{"alice"}, tab.Broke())
		require.Equal(t, channel, tab.AnyChannel())
		require.Len(t, tab.seats, 1)
	})
	t.Run("is dropped when an error is the reply", func(t *testing.T) {
		for _, r := range []Reply{Moved, NotNow, Refused} {
			tab := probing(t)
			require.Empty(t, tab.Replied(tab.Next()[0], r), r)
			require.Empty(t, tab.Next())
			require.NotContains(t, tab.seats, "c:probe")
		}
	})
}

func TestStands(t *testing.T) {
	for _, state := range []State{None, Asked, On, Again, Leaving} {
		tab, _ := in(t, state, true)
		require.Equal(t, state == On, tab.Stands("alice", channel), state)
		require.False(t, tab.Stands("bob", channel), state)
		require.False(t, tab.Stands("alice", "another"), state)
	}
}

func TestUnknownChannels(t *testing.T) {
	tab := New[string]()
	tab.Release("a", channel)
	tab.Renew("a", channel)
	_, asked := tab.Confirmed(channel)
	require.False(t, asked)
	_, unsolicited := tab.Ended(channel)
	require.False(t, unsolicited)
	require.Empty(t, tab.Subscriber(channel))
	require.Empty(t, tab.AnyChannel())
	require.True(t, tab.Unused())
	require.Empty(t, tab.Next())
}

// serve has a server take the next commands, and answer as it should.
func serve(t *testing.T, tab *Table[string], server map[string]bool, wanted map[string]string) {
	for _, c := range tab.Next() {
		for _, name := range c.Channels {
			server[name] = !c.Leave
			if c.Leave {
				require.Empty(t, wanted[name])
				tab.Ended(name)
				continue
			}
			s, asked := tab.Confirmed(name)
			require.True(t, asked)
			require.Equal(t, wanted[name], s)
		}
		if c.Leave {
			tab.Left(c)
		} else {
			require.Empty(t, tab.Replied(c, Accepted))
		}
	}
}

// FuzzTable lets things happen in any order, with a server as it should be on
// the other side. Whatever happened, when everything has come to rest the
// server has what is wanted.
func FuzzTable(f *testing.F) {
	f.Add([]byte("wnwrnbwn"))
	f.Add([]byte{0, 3, 4, 1, 3, 0, 5, 2, 3, 6, 0, 3})
	f.Fuzz(func(t *testing.T, script []byte) {
		tab := New[string]()
		server := make(map[string]bool)
		wanted := make(map[string]string)
		names := []string{"a", "b", "c", "d"}
		for i, b := range script {
			name := names[int(b>>3)%len(names)]
			switch b % 7 {
			case 0, 1:
				wanted[name] = fmt.Sprint(name, i)
				tab.Want(wanted[name], name, uint16(len(name)))
			case 2:
				tab.Release(wanted[name], name)
				delete(wanted, name)
			case 3:
				serve(t, tab, server, wanted)
			case 4:
				tab.Renew(wanted[name], name)
			case 5:
				if server[name] {
					server[name] = false
					tab.Ended(name)
				}
			case 6:
				clear(server)
				require.Len(t, tab.Broke(), len(wanted))
				tab.Connected()
			}
		}
		for range 5 {
			serve(t, tab, server, wanted)
		}
		require.Empty(t, tab.Next())
		for _, name := range names {
			require.Equal(t, wanted[name] != "", server[name], name)
			require.Equal(t, wanted[name], tab.Subscriber(name))
		}
		require.Len(t, tab.seats, len(wanted))
	})
}

// The package is a machine: it needs nothing that has a lock, a clock, a
// goroutine or I/O.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		f, err := parser.ParseFile(token.NewFileSet(), name, source, 0)
		require.NoError(t, err)
		for _, i := range f.Imports {
			require.Contains(t, []string{`"slices"`, `"time"`}, i.Path.Value, name)
		}
		require.NotContains(t, string(source), "time.Now", name)
		ast.Inspect(f, func(n ast.Node) bool {
			_, started := n.(*ast.GoStmt)
			require.False(t, started, name)
			return true
		})
	}
}

// Once a server has turned out to have slots each command has channels of one.
func TestSplit(t *testing.T) {
	tab := New[string]()
	slot := func(channel string) uint16 { return uint16(channel[0]) }
	for _, channel := range []string{"a1", "a2", "b1"} {
		tab.Want(channel, channel, 0)
	}
	commands := tab.Next()
	require.Len(t, commands, 1)
	tab.Split(slot)
	require.Empty(t, tab.Replied(commands[0], NotNow)[3:])
	tab = New[string]()
	for _, channel := range []string{"a1", "a2", "b1"} {
		tab.Want(channel, channel, 0)
	}
	tab.Split(slot)
	commands = tab.Next()
	require.Len(t, commands, 2)
	for _, c := range commands {
		for _, channel := range c.Channels {
			require.Equal(t, slot(c.Channels[0]), slot(channel))
		}
	}
}
