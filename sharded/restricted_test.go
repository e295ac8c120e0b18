package sharded_test

import (
	"os"
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Servers that refuse commands, as some services do. Nothing runs beside the
// cases of the cluster; see TestContractOnACluster.
func TestContractRestricted(t *testing.T) {
	redistest.OnImages(t, func(t *testing.T, image string) {
		o := redistest.Options{Image: image, Args: rediscontract.RestrictedArgs()}
		t.Run("server", func(t *testing.T) {
			rediscontract.RunRestricted(t, redistest.SharedServer(o), newAdapter)
		})
		t.Run("cluster", func(t *testing.T) {
			o.Primaries, o.Replicas = 3, 1
			rediscontract.RunRestrictedCluster(t, redistest.SharedCluster(o), newAdapter)
		})
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
