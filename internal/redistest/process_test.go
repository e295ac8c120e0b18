package redistest

import (
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNewEnough(t *testing.T) {
	for line, want := range map[string]bool{
		"Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0": true,
		"Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0": true,
		"Redis server v=10.2.0 sha=0":                                true,
		"Redis server v=6.2.7 sha=0":                                 false,
		"command not found":                                          false,
	} {
		require.Equal(t, want, newEnough([]byte(line)), line)
	}
}

func TestContradictingEnvironment(t *testing.T) {
	t.Setenv("FANOUT_REQUIRE_DOCKER", "1")
	t.Setenv("FANOUT_TEST_PROCESSES", "1")
	_, err := StartServer(t.Context(), Options{})
	require.ErrorContains(t, err, "contradict")
}

func TestNothingToRunServersWith(t *testing.T) {
	t.Setenv("FANOUT_REQUIRE_DOCKER", "")
	t.Setenv("FANOUT_TEST_PROCESSES", "1")
	t.Setenv("PATH", t.TempDir())
	_, err := StartCluster(t.Context(), Options{})
	require.ErrorIs(t, err, ErrUnavailable)
}

func TestClusterOfProcesses(t *testing.T) {
	if _, err := findServer(t.Context(), "redis-server"); err != nil {
		t.Skip(err)
	}
	t.Setenv("FANOUT_REQUIRE_DOCKER", "")
	t.Setenv("FANOUT_TEST_PROCESSES", "1")
	c := NewCluster(t, Options{})
	n := c.Owner(0)
	require.NoError(t, set(t.Context(), c.Client(t), keyIn(0), "v"))
	require.NoError(t, n.Kill(t.Context()))
	require.NoError(t, n.Start(t.Context()))
	require.NoError(t, c.WaitHealthy(t.Context()))
}

func TestGuardKillsWhatATestProcessLeaves(t *testing.T) {
	left := exec.Command("sleep", "60")
	require.NoError(t, left.Start())
	g := newGuard(left.Process.Pid)
	require.NotNil(t, g, strconv.Itoa(left.Process.Pid))
	require.NoError(t, g.input.Close(), "as the end of this process would")
	require.ErrorContains(t, left.Wait(), "killed")
	g.cmd.Wait()
}
