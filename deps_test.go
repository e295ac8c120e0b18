package fanout_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCoreImportsOnlyTheStandardLibrary(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	require.NoError(t, err)
	packages := strings.Fields(string(out))
	require.NotEmpty(t, packages)
	for _, p := range packages {
		require.True(t, strings.HasPrefix(p+"/", "github.com/fanoutgo/fanout/"), p)
	}
}

// Backends depend on the contract, and the contract on nothing.
func TestTheContractIsALeaf(t *testing.T) {
	imports := func(pkg string) []string {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg).Output()
		require.NoError(t, err)
		return strings.Fields(string(out))
	}
	require.Equal(t, []string{"github.com/fanoutgo/fanout/adapter"}, imports("./adapter"))
	for _, pkg := range []string{"./adapter/memory", "./adapter/redis", "./adapter/adaptertest", "./sharded", "./internal/archive", "./internal/redispubsub"} {
		require.NotContains(t, imports(pkg), "github.com/fanoutgo/fanout", pkg)
	}
}

// Machines have no lock, clock, context or hub.
func TestMachinesArePure(t *testing.T) {
	for _, pkg := range []string{"sequence", "outbox", "item", "few", "batch", "history", "follow", "replay", "peers", "control", "ask", "watch", "presence", "redispubsub/seats"} {
		out, err := exec.Command("go", "list", "-f", "{{join .Imports \"\\n\"}}", "./internal/"+pkg).Output()
		require.NoError(t, err)
		for _, imported := range strings.Fields(string(out)) {
			require.NotContains(t, []string{"sync", "sync/atomic", "context", "net", "os", "github.com/fanoutgo/fanout"}, imported, pkg)
		}
		sources, err := exec.Command("go", "list", "-f", "{{range .GoFiles}}{{$.Dir}}/{{.}}\n{{end}}", "./internal/"+pkg).Output()
		require.NoError(t, err)
		for _, file := range strings.Fields(string(sources)) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NotContains(t, string(text), "time.Now", file)
		}
	}
}
