package redispubsub

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/logtest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// as returns an engine of an ACL user that may call everything but some
// commands.
func as(t *testing.T, s *redistest.Server, name string, log *logtest.Text, rights ...string) *Engine {
	t.Helper()
	set := slices.Concat([]string{"ACL", "SETUSER", name, "on", ">secret", "~*", "&*", "+@all"}, rights)
	require.NoError(t, s.Do(t.Context(), set...).Error())
	client := s.Client(t, func(o *rueidis.ClientOption) { o.Username, o.Password = name, "secret" })
	e, err := New(client, Config{
		Name: "test", Sharded: true, ProbeInterval: 20 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	require.NoError(t, err)
	require.NoError(t, e.Attach(silent{}))
	t.Cleanup(func() { require.NoError(t, e.Close(context.Background())) })
	return e
}

const kept = "fanout:r:{kept}"

// keep appends a message to a history.
func keep(t *testing.T, e *Engine, text string) adapter.Position {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	at, _, err := e.Append(ctx, kept, adapter.Record{
		Frame: []byte(text), Messages: 1, Keep: adapter.Retention{Messages: 10, Age: time.Hour},
	})
	require.NoError(t, err)
	return at
}

// What a server refuses decides how its histories are kept, and all ways keep
// the same history.
func TestWays(t *testing.T) {
	s := redistest.NewServer(t, redistest.Options{})
	noFunctions := []string{"-function", "-fcall", "-fcall_ro"}
	var last adapter.Position
	for i, c := range []struct {
		rights []string
		way    way
	}{
		{nil, byFunction},
		{noFunctions, byScript},
		{slices.Concat(noFunctions, []string{"-info", "+info|server"}), byTold},
	} {
		t.Run(c.way.String(), func(t *testing.T) {
			var log logtest.Text
			e := as(t, s, fmt.Sprint("way", i), &log, c.rights...)
			for n := range 3 {
				at := keep(t, e, fmt.Sprint(n))
				if c.way != byTold { // which knows the server by its run_id
					require.True(t, last == adapter.Position{} || at.Epoch == last.Epoch, "it is the same epoch")
				}
				require.Equal(t, last.Offset+1, at.Offset)
				last = at
			}
			page, err := e.History(t.Context(), kept, adapter.Query{Limit: 100, Keep: adapter.Retention{Messages: 10, Age: time.Hour}})
			require.NoError(t, err)
			require.Equal(t, last, page.Head)
			require.NoError(t, e.Health())
			require.Eventually(t, func() bool { return strings.Count(log.String(), "histories are kept "+c.way.String()) == 1 }, 5*time.Second, time.Millisecond)
		})
	}
	require.NoError(t, s.Do(t.Context(), "SCRIPT", "FLUSH").Error())
}

// Servers that are flushed get the functions and scripts again.
func TestFlushedServers(t *testing.T) {
	s := redistest.NewServer(t, redistest.Options{})
	var log logtest.Text
	for i, rights := range [][]string{nil, {"-fcall"}, {"-fcall", "-info", "+info|server"}, {"-fcall", "-info", "-role"}} {
		e := as(t, s, fmt.Sprint("flushed", i), &log, rights...)
		before := keep(t, e, "before")
		require.NoError(t, s.Do(t.Context(), "SCRIPT", "FLUSH").Error())
		require.NoError(t, s.Do(t.Context(), "FUNCTION", "FLUSH").Error())
		after := keep(t, e, "after")
		require.Equal(t, before.Epoch, after.Epoch, "nothing was lost")
		require.Equal(t, before.Offset+1, after.Offset)
	}
}

// If a server does not say which one it is, each new connection counts as a
// loss.
func TestUnknownServers(t *testing.T) {
	s := redistest.NewServer(t, redistest.Options{})
	var log logtest.Text
	e := as(t, s, "unknown", &log, "-fcall", "-info", "-role")
	first := keep(t, e, "first")
	require.Equal(t, first.Epoch, keep(t, e, "second").Epoch)
	require.NoError(t, e.Health())
	require.NoError(t, s.Do(t.Context(), "CLIENT", "KILL", "USER", "unknown").Error())
	var third adapter.Position
	require.Eventually(t, func() bool {
		at, _, err := e.Append(t.Context(), kept, adapter.Record{
			Frame: []byte("third"), Messages: 1, Keep: adapter.Retention{Messages: 10, Age: time.Hour},
		})
		third = at
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	require.Greater(t, third.Epoch, first.Epoch)
	require.Equal(t, third.Epoch, keep(t, e, "fourth").Epoch, "the epoch begins once")
	require.ErrorContains(t, e.Health(), "does not say which server it is")
	require.Eventually(t, func() bool { return strings.Count(log.String(), "begin a new epoch") == 1 }, 5*time.Second, time.Millisecond)

	page, err := e.History(t.Context(), kept, adapter.Query{Limit: 100, Keep: adapter.Retention{Messages: 10, Age: time.Hour}})
	require.NoError(t, err)
	require.Len(t, page.Before, 1)
	require.False(t, page.Before[0].Whole, "something may be missing")
}

// A server that was started again has another run_id, which scripts are told.
func TestToldServersThatRestart(t *testing.T) {
	s := redistest.NewServer(t, redistest.Options{Args: []string{
		"--user", "told", "on", ">secret", "~*", "&*", "+@all", "-acl|setuser", "-fcall", "-info", "+info|server",
		"--appendonly", "yes", "--appendfsync", "always",
	}})
	client := s.Client(t, func(o *rueidis.ClientOption) { o.Username, o.Password = "told", "secret" })
	e := newEngine(t, client, 20*time.Millisecond)
	first := keep(t, e, "first")
	require.NoError(t, s.Kill(t.Context()))
	require.NoError(t, s.Start(t.Context()))
	var second adapter.Position
	require.Eventually(t, func() bool {
		at, _, err := e.Append(t.Context(), kept, adapter.Record{
			Frame: []byte("second"), Messages: 1, Keep: adapter.Retention{Messages: 10, Age: time.Hour},
		})
		second = at
		return err == nil
	}, 20*time.Second, 10*time.Millisecond)
	require.Greater(t, second.Epoch, first.Epoch)
}

// If a node can keep no histories, errors and Health say why. Once a right is
// granted, histories work.
func TestServersThatKeepNone(t *testing.T) {
	s := redistest.NewServer(t, redistest.Options{})
	var log logtest.Text
	e := as(t, s, "none", &log, "-fcall", "-evalsha")
	_, _, err := e.Append(t.Context(), kept, adapter.Record{
		Frame: []byte("x"), Messages: 1, Keep: adapter.Retention{Messages: 10, Age: time.Hour},
	})
	for _, err := range []error{err, e.Health()} {
		require.ErrorIs(t, err, adapter.ErrRefused)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		require.ErrorContains(t, err, "'fcall'")
		require.ErrorContains(t, err, "'evalsha'")
	}
	require.NoError(t, s.Do(t.Context(), "ACL", "SETUSER", "none", "+fcall").Error())
	require.Eventually(t, func() bool {
		_, err := e.History(t.Context(), kept, adapter.Query{Keep: adapter.Retention{Messages: 10, Age: time.Hour}})
		return err == nil && e.Health() == nil
	}, 20*time.Second, 50*time.Millisecond)
}

func TestIntroduction(t *testing.T) {
	const (
		id    = "0123456789abcdef0123456789abcdef01234567"
		other = "fedcba9876543210fedcba9876543210fedcba98"
		zero  = "0000000000000000000000000000000000000000"
		run   = "aaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbb"
		now   = 1_700_000_000_000
	)
	replication := func(id, former string) string {
		return "role:master\r\nmaster_replid:" + id + "\r\nmaster_replid2:" + former + "\r\n"
	}
	server := "run_id:" + run + "\r\nuptime_in_seconds:10\r\n"
	before := &keeping{id: id[:20], since: 5}
	for _, c := range []struct {
		name, replication, server, self string
		before                          *keeping
		who                             string
		way                             way
	}{
		{"all is told", replication(id, zero), server, "node1", nil, id[:20] + " - " + run + " node1 1699999990000", byTold},
		{"it was a replica", replication(id, other), server, "", nil, id[:20] + " " + other[:20] + " " + run + " - 1700000000000", byTold},
		{"it was seen before", replication(id, other), server, "", before, id[:20] + " " + other[:20] + " " + run + " - 5", byTold},
		{"another was seen before", replication(other, id), server, "", before, other[:20] + " " + id[:20] + " " + run + " - 1700000000000", byTold},
		{"no replication section", "", server, "", nil, run[:20] + " - - - 1700000000000", byTold},
		{"no server section", replication(id, zero), "", "", nil, id[:20] + " - - - 1700000000000", byTold},
		{"nothing", "", "", "", nil, "? 1700000000000", byUnknown},
		{"zeros", replication(zero, zero), "run_id:0\r\n", "", nil, "? 1700000000000", byUnknown},
		{"nonsense", replication("x y", zero), "run_id:" + run[:10] + " \n", "", nil, "? 1700000000000", byUnknown},
		{"a node that is no word", replication(id, zero), server, "a b", nil, id[:20] + " - " + run + " - 1699999990000", byTold},
		{"an uptime of the far past", replication(id, zero), "run_id:" + run + "\r\nuptime_in_seconds:99999999999999\r\n", "", nil, id[:20] + " - " + run + " - 1700000000000", byTold},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := introduction(c.replication, c.server, c.self, now, c.before)
			require.Equal(t, c.way, s.way)
			require.Equal(t, c.who, s.who)
		})
	}
}
