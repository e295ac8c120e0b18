package fanout_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"regexp"
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
	for _, pkg := range []string{"./adapter/memory", "./adapter/redis", "./adapter/partition", "./adapter/adaptertest", "./sharded", "./internal/archive", "./internal/redispubsub", "./adapter/migrate"} {
		require.NotContains(t, imports(pkg), "github.com/fanoutgo/fanout", pkg)
	}
}

// clocks matches uses of package time that look at the clock, or wait.
var clocks = regexp.MustCompile(`\btime\.(Now|Since|Until|After|AfterFunc|NewTimer|NewTicker|Tick|Sleep)\b`)

// Machines have no lock, clock, context, goroutine or hub.
func TestMachinesArePure(t *testing.T) {
	for _, pkg := range []string{"sequence", "outbox", "item", "life", "few", "linked", "batch", "history", "follow", "replay", "peers", "control", "ask", "watch", "presence", "once", "redispubsub/seats", "redispubsub/feed", "../adapter/partition/internal/rollout", "../adapter/partition/internal/locate", "../adapter/migrate/internal/flip", "../adapter/migrate/internal/lane"} {
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
			require.NotRegexp(t, clocks, string(text), file)
			require.NotRegexp(t, `(?m)^\s*go (func|\w+)\b.*\(`, string(text), file)
		}
	}
}

// docs/ARCHITECTURE.md lists every mutex of a hub: those of the root, and of
// the packages in internal that the root imports, except internal/locks, which
// is what mutexes are made of. Adapters, tools and tests have locks of their
// own.
func TestEveryMutexIsDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/ARCHITECTURE.md")
	require.NoError(t, err)
	sources, err := exec.Command("go", "list", "-deps", "-f",
		`{{range .GoFiles}}{{$.ImportPath}} {{$.Dir}}/{{.}}{{"\n"}}{{end}}`, ".").Output()
	require.NoError(t, err)
	var files []string
	for line := range strings.Lines(string(sources)) {
		pkg, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		internal := strings.HasPrefix(pkg, "github.com/fanoutgo/fanout/internal/") && !strings.HasSuffix(pkg, "/locks")
		if internal || pkg == "github.com/fanoutgo/fanout" {
			files = append(files, file)
		}
	}
	found := 0
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range fields.Fields.List {
				if isMutex(field.Type) {
					found++
					require.Contains(t, string(text), "`"+spec.Name.Name+"."+field.Names[0].Name+"`", file)
				}
			}
			return true
		})
	}
	require.Greater(t, found, 15)
}

func isMutex(e ast.Expr) bool {
	if generic, ok := e.(*ast.IndexExpr); ok {
		e = generic.X
	}
	named, ok := e.(*ast.SelectorExpr)
	return ok && strings.HasSuffix(named.Sel.Name, "Mutex")
}
