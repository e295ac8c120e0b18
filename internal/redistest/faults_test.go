package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestKillPromotesTheReplica(t *testing.T) {
	c := replicated(t)
	old := c.Owner(0)
	replica := c.ReplicasOf(old)[0]
	require.NoError(t, old.Kill(t.Context()))
	_, err := old.HostAddr(t.Context())
	require.ErrorContains(t, err, "does not run")
	require.Error(t, old.Do(shortly(t), "PING").Error())

	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, replica, c.Owner(0))
	require.NoError(t, set(t.Context(), c.Client(t), keyIn(0), "v"))

	require.NoError(t, old.Start(t.Context()))
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, []*Node{old}, c.ReplicasOf(replica), "it comes back under its name and address")

	require.NoError(t, replica.Do(t.Context(), "SET", keyIn(0), "w").Error())
	require.NoError(t, replica.Kill(t.Context()))
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, old, c.Owner(0))
	got, err := get(t.Context(), c.Client(t), keyIn(0))
	require.NoError(t, err)
	require.Equal(t, "w", got, "replicas of a healthy cluster get what is written")
}

func TestStopAndStart(t *testing.T) {
	s := single(t)
	require.NoError(t, s.Stop(t.Context()))
	require.Error(t, s.Do(shortly(t), "PING").Error())
	require.Error(t, s.Stop(t.Context()), "it does not run")
	require.NoError(t, s.Start(t.Context()))
	client := s.Client(t)
	require.NoError(t, set(t.Context(), client, "k", "v"))
}

func TestPauseIsSilentAndGoesOn(t *testing.T) {
	s := single(t)
	client := s.Client(t)
	require.NoError(t, set(t.Context(), client, "k", "v"))
	require.NoError(t, s.Pause(t.Context()))
	require.ErrorIs(t, set(shortly(t), client, "k", "w"), context.DeadlineExceeded)
	require.NoError(t, s.Unpause(t.Context()))
	eventually(t, "the server answers", func(ctx context.Context) error {
		return set(ctx, client, "k", "x")
	})
}

func TestPausedPrimaryIsReplaced(t *testing.T) {
	c := replicated(t)
	old := c.Owner(0)
	replica := c.ReplicasOf(old)[0]
	require.NoError(t, old.Pause(t.Context()))
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, replica, c.Owner(0))
	require.NoError(t, old.Unpause(t.Context()))
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, []*Node{old}, c.ReplicasOf(replica))
}

func TestNodeThatHangsIsRestarted(t *testing.T) {
	c := primaries(t)
	n := c.Owner(0)
	// Not Pause, of which the harness would know.
	require.NoError(t, n.machine.signal(t.Context(), pause))
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.NoError(t, n.Do(t.Context(), "PING").Error())
}

func TestSlotsWithoutAnOwnerGetOne(t *testing.T) {
	c := primaries(t)
	n := c.Owner(0)
	forget := func(n *Node, slots ...string) {
		require.NoError(t, n.Do(t.Context(), append([]string{"CLUSTER", "DELSLOTS"}, slots...)...).Error())
	}
	forget(n, "0", "989")
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, n, c.Owner(989))
	for _, n := range c.Nodes() {
		forget(n, "989")
	}
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, c.Nodes()[0], c.Owner(989), "nobody remembers an owner")
}

func TestCutIsSilentAndHeals(t *testing.T) {
	c := replicated(t)
	old := c.Owner(0)
	replica := c.ReplicasOf(old)[0]
	established, err := c.net.wrap(c.dial)(t.Context(), old.Addr(), new(net.Dialer), nil)
	require.NoError(t, err)
	defer established.Close()
	port, err := old.HostAddr(t.Context())
	require.NoError(t, err)

	Must(t, old.Cut(t.Context()))
	requireSilent(t, established)
	_, err = c.net.wrap(c.dial)(shortly(t), old.Addr(), new(net.Dialer), nil)
	require.ErrorIs(t, err, context.DeadlineExceeded, "new connections hang")
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, replica, c.Owner(0), "the other nodes don't reach it either")

	require.NoError(t, old.Heal(t.Context()))
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, []*Node{old}, c.ReplicasOf(replica), "it comes back under its name and address")
	now, err := old.HostAddr(t.Context())
	require.NoError(t, err)
	t.Logf("published at %s before and at %s after", port, now)
}

func TestCutNeedsContainers(t *testing.T) {
	s := single(t)
	if _, isProcess := s.Node.machine.(*processMachine); !isProcess {
		t.Skip("these servers are containers")
	}
	require.ErrorIs(t, s.Cut(t.Context()), errors.ErrUnsupported)
	require.NoError(t, s.Do(t.Context(), "PING").Error(), "it is as before")
}

func TestKillClients(t *testing.T) {
	c := primaries(t)
	n := c.Owner(0)
	subscribers := n.pubsubClients(t)
	client := c.Client(t)
	dedicated, cancel := client.Nodes()[n.Addr()].Dedicate()
	defer cancel()
	ended := dedicated.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {}})
	require.NoError(t, dedicated.Do(t.Context(), dedicated.B().Ssubscribe().Channel(keyIn(0)).Build()).Error())
	eventually(t, "the server knows its subscriber", func(context.Context) error {
		if got := n.pubsubClients(t); got != subscribers+1 {
			return fmt.Errorf("%d subscribers", got)
		}
		return nil
	})
	killed, err := n.KillClients(t.Context(), "pubsub")
	require.NoError(t, err)
	require.Equal(t, subscribers+1, killed)
	select {
	case err := <-ended:
		require.Error(t, err)
	case <-t.Context().Done():
	}
	require.NoError(t, n.Do(t.Context(), "PING").Error(), "our own connection stands")
}

func (n *Node) pubsubClients(t *testing.T) int {
	t.Helper()
	list, err := n.Do(t.Context(), "CLIENT", "LIST", "TYPE", "pubsub").ToString()
	require.NoError(t, err)
	return strings.Count(list, "\n")
}
