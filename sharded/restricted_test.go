package sharded_test

import (
	"os"
	"strings"
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/logtest"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

var tested = rediscontract.Adapters{Sharded: true, New: newAdapter, Open: openLogged}

// A command that does not exist is refused with another error than one that an
// ACL denies.
func TestRenamedCommands(t *testing.T) {
	t.Parallel()
	redistest.Long(t)
	redistest.OnImages(t, tested.RunRenamed)
}

// Servers that refuse commands, as some services do. The cases that this
// concerns run on all servers and on a cluster, and where all tests are asked
// for, others run on the default server as well.
func TestContractRestricted(t *testing.T) {
	t.Parallel()
	redistest.OnImages(t, func(t *testing.T, image string) {
		o := redistest.Options{Image: image, Args: rediscontract.RestrictedArgs()}
		t.Run("server", func(t *testing.T) {
			t.Parallel()
			tested.RunRestricted(t, image, redistest.SharedServer(o))
		})
		if image != redistest.DefaultImage {
			return
		}
		for _, moves := range []bool{true, false} {
			o, what := o, "slots move"
			if !moves {
				o.Replicas, what = 1, "primaries fail"
			}
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				if !moves {
					redistest.Long(t)
				}
				rediscontract.RunRestrictedCluster(t, redistest.SharedCluster(o), moves, newAdapter)
			})
		}
	})
}

// WIRE.md says how another program speaks into a history where servers have no
// functions: what stands there works, beside hubs that call functions.
func TestScriptOfAStranger(t *testing.T) {
	t.Parallel()
	s := redistest.NewServer(t, redistest.Options{})
	h := keeping(t, s.Client(t), 200)
	m := member(t, h)
	require.NoError(t, h.Room("lobby").Join(within(t), m))
	say(t, h.Room("lobby"), 1, 1)
	_, at := hear(t, m, 1)
	source, err := os.ReadFile("../internal/redispubsub/history.lua")
	require.NoError(t, err)
	evalsha := wireCommand(t, "EVALSHA ")
	evalsha[1], err = s.Do(within(t), "SCRIPT", "LOAD", string(source)+"return script(append, KEYS, ARGV)\n").ToString()
	require.NoError(t, err)
	answer, err := s.Do(within(t), evalsha...).AsStrSlice()
	require.NoError(t, err)
	require.Equal(t, "2", answer[1])
	msg, err := m.Receive(within(t))
	require.NoError(t, err)
	require.Equal(t, "hello", string(msg.Data))
	require.Equal(t, at.Epoch, msg.Position.Epoch)

	for what, who := range map[string]string{"nonsense": "x", "no replication ID": "- - - - 1", "no time": "? x"} {
		call := append(evalsha[:len(evalsha)-1:len(evalsha)-1], who)
		require.Error(t, s.Do(within(t), call...).Error(), what)
	}
	say(t, h.Room("lobby"), 3, 3)
	hear(t, m, 1)
}

// A proxy that shows one endpoint before many shards, as Azure's Enterprise
// policy does, is imitated by a node of a cluster that owns all slots, and a
// client that takes it for a single server.
func TestOneEndpointBeforeManyShards(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Primaries: 1})
	var lines logtest.Text
	a, err := sharded.New(c.Client(t, func(o *rueidis.ClientOption) { o.ForceSingleClient = true }),
		&sharded.Options{Logger: lines.Logger()})
	require.NoError(t, err)
	h, err := fanout.New(a, &fanout.Options{Room: func(string) fanout.RoomOptions {
		return fanout.RoomOptions{Retain: fanout.Retention{Messages: 10}}
	}})
	require.NoError(t, err)
	defer h.Close(within(t))
	m := member(t, h)
	for range 3 { // the first time it turns out, then each room has its slot
		inParallel(50, func(i int) {
			if err := h.Room(roomNames(50)[i]).Join(within(t), m); err != nil {
				t.Error(err)
			}
		})
		inParallel(50, func(i int) {
			if err := h.Room(roomNames(50)[i]).Leave(within(t), m); err != nil {
				t.Error(err)
			}
		})
		_, err = c.Nodes()[0].KillClients(within(t), "pubsub")
		require.NoError(t, err)
	}
	require.NoError(t, h.Room("last").Join(within(t), m))
	say(t, h.Room("last"), 1, 3)
	hear(t, m, 3)
	require.Equal(t, 1, strings.Count(lines.String(), "one endpoint before many shards"))
}

// docs/services.md has the restrictions that are tried, and no others.
func TestDocumentedRestrictions(t *testing.T) {
	text, err := os.ReadFile("../docs/services.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "| services | rights |\n|---|---|\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	var rows []string
	for i := range rediscontract.Restrictions {
		rows = append(rows, rediscontract.Restrictions[i].Row())
	}
	require.Equal(t, strings.Join(rows, "\n"), table)
}
