package redistest

import (
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
)

// inContainers skips a test where servers are processes.
func inContainers(t *testing.T, n *Node) *containerMachine {
	t.Helper()
	m, ok := n.machine.(*containerMachine)
	if !ok {
		t.Skip("these servers are processes")
	}
	return m
}

func TestContainersAreUsedAgain(t *testing.T) {
	// Not those of other tests, whose clusters are closed when they please.
	o := Options{Args: []string{"--maxclients", "4321"}}
	t.Run("by another server, which knows nothing of the first", func(t *testing.T) {
		first, err := StartServer(t.Context(), o)
		Must(t, err)
		m := inContainers(t, first.Node)
		require.NoError(t, first.Do(t.Context(), "SET", "k", "v").Error())
		require.NoError(t, first.Do(t.Context(), "CONFIG", "SET", "maxmemory", "123mb").Error())
		run := first.runID(t)
		require.NoError(t, first.Close())
		require.Error(t, first.Do(t.Context(), "PING").Error(), "whoever still has it does not reach the next one")

		second := NewServer(t, o)
		require.Same(t, m, second.machine)
		require.NotEqual(t, run, second.runID(t))
		keys, err := second.Do(t.Context(), "DBSIZE").AsInt64()
		require.NoError(t, err)
		require.Zero(t, keys)
		memory, err := second.Do(t.Context(), "CONFIG", "GET", "maxmemory").AsStrMap()
		require.NoError(t, err)
		require.Equal(t, "0", memory["maxmemory"])
		clients, err := second.Do(t.Context(), "CONFIG", "GET", "maxclients").AsStrMap()
		require.NoError(t, err)
		require.Equal(t, "4321", clients["maxclients"])
	})
	t.Run("by another cluster, also those of replicas", func(t *testing.T) {
		o := Options{Replicas: 1, Args: o.Args}
		before := make(map[machine]string)
		first, err := StartCluster(t.Context(), o)
		Must(t, err)
		inContainers(t, first.Nodes()[0])
		for _, n := range first.Nodes() {
			before[n.machine] = n.ID()
		}
		require.NoError(t, set(t.Context(), first.Client(t), "k", "v"))
		require.NoError(t, first.WaitHealthy(t.Context()))
		require.NoError(t, first.Close())
		second := NewCluster(t, o)
		for _, n := range second.Nodes() {
			id, ok := before[n.machine]
			require.True(t, ok)
			require.NotEqual(t, id, n.ID())
		}
		_, err = get(t.Context(), second.Client(t), "k")
		require.Error(t, err)

		t.Log("a node that was killed knows its cluster when it starts again, as in a container of its own")
		node := second.Nodes()[0]
		require.NoError(t, node.Kill(t.Context()))
		require.NoError(t, node.Start(t.Context()))
		id, err := node.Do(t.Context(), "CLUSTER", "MYID").ToString()
		require.NoError(t, err)
		require.Equal(t, node.ID(), id)
	})
	t.Run("but not after a fault", func(t *testing.T) {
		for name, fault := range map[string]func(*Node) error{
			"killed": func(n *Node) error { return n.Kill(t.Context()) },
			"paused": func(n *Node) error { return n.Pause(t.Context()) },
			"locked": func(n *Node) error { return n.Do(t.Context(), "CONFIG", "SET", "requirepass", "secret").Error() },
		} {
			t.Run(name, func(t *testing.T) {
				first, err := StartServer(t.Context(), o)
				Must(t, err)
				m := inContainers(t, first.Node)
				require.NoError(t, fault(first.Node))
				require.NoError(t, first.Close())
				require.NotSame(t, m, NewServer(t, o).machine)
			})
		}
	})
}

func (n *Node) runID(t *testing.T) string {
	t.Helper()
	info, err := n.Do(t.Context(), "INFO", "server").ToString()
	require.NoError(t, err)
	id := field(info, "run_id")
	require.NotEmpty(t, id)
	return id
}

// A container that is in the pool and not as a new one is not used.
func TestContainerThatIsNotFresh(t *testing.T) {
	o := Options{Args: []string{"--maxclients", "4322"}}
	first, err := StartServer(t.Context(), o)
	Must(t, err)
	m := inContainers(t, first.Node)
	require.NoError(t, first.Close())
	var w *containerMachine
	require.NoError(t, m.waitFresh(t.Context(), false))
	recycled.mu.Lock()
	for _, w = range recycled.idle {
		if w == m {
			break
		}
	}
	recycled.mu.Unlock()
	require.Same(t, m, w, "it waits")
	c, err := m.connect(t.Context())
	require.NoError(t, err)
	_, err = c.Write([]byte("SET k v\r\n"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 5))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NotSame(t, m, NewServer(t, o).machine)
}

// Where containers can be dialed, their ports are not published: see
// beforeCreate.
func TestPortsOfContainers(t *testing.T) {
	s := NewServer(t, Options{})
	m := inContainers(t, s.Node)
	r, err := m.b.docker.ContainerInspect(t.Context(), m.c.GetContainerID(), client.ContainerInspectOptions{})
	require.NoError(t, err)
	published := 0
	for _, bindings := range r.Container.NetworkSettings.Ports {
		published += len(bindings)
	}
	require.Equal(t, m.b.direct, published == 0)
}
