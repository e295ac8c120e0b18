package fanout

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/stretchr/testify/require"
)

// What exists once for each member in a room, or for each room, is kept small:
// there are millions of them.
func TestSizes(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the sizes are those of 64-bit platforms")
	}
	if lockcheck {
		t.Skip("mutexes that check themselves are larger")
	}
	for name, test := range map[string]struct{ size, most uintptr }{
		"membership": {unsafe.Sizeof(membership{}), 128},
		"cursor":     {unsafe.Sizeof(roomlog.Cursor[item.Entry, *membership]{}), 64},
		"room":       {unsafe.Sizeof(room{}), 248},
		"history":    {unsafe.Sizeof(roomHistory{}), 336},
		"log":        {unsafe.Sizeof(roomlog.Log[item.Entry, *membership]{}), 72},
		"member":     {unsafe.Sizeof(Member{}), 112},
		"entry":      {unsafe.Sizeof(item.Entry{}), 72},
	} {
		t.Run(name, func(t *testing.T) { require.LessOrEqual(t, test.size, test.most) })
	}
}

// The files and functions of this package stay small enough to be read in one
// go. Sixteen files deliver messages. Four more have a subject each that came
// later: how members begin, and how they end; what is asked of people on all
// hubs; and who is here.
func TestLayout(t *testing.T) {
	const maxFiles, maxLines, maxFunc = 20, 400, 60
	all, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var files []string
	for _, file := range all {
		if !strings.HasSuffix(file, "_test.go") {
			files = append(files, file)
		}
	}
	t.Run("has few files", func(t *testing.T) {
		require.NotEmpty(t, files)
		require.LessOrEqual(t, len(files), maxFiles, files)
	})
	t.Run("comments fit", commentsFit)
	for _, file := range files {
		t.Run("is small/"+file, func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			require.LessOrEqual(t, bytes.Count(text, []byte("\n")), maxLines)
			set := token.NewFileSet()
			parsed, err := parser.ParseFile(set, file, text, 0)
			require.NoError(t, err)
			for _, decl := range parsed.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok {
					lines := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1
					require.LessOrEqual(t, lines, maxFunc, f.Name.Name)
				}
			}
		})
	}
}

// commentsFit looks at all Go files of all modules. Lines that hold only a
// comment have at most 80 columns. Pictures, tables and code within comments,
// which gofmt indents with a tab, may have 100. A tab counts as one column.
func commentsFit(t *testing.T) {
	const maxProse, maxIndented = 80, 100
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && len(path) > 1 && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			most := maxProse
			comment, ok := strings.CutPrefix(strings.TrimLeft(line, "\t"), "//")
			if strings.HasPrefix(comment, "\t") {
				most = maxIndented
			}
			if n := utf8.RuneCountInString(line); ok && n > most {
				t.Errorf("%s:%d: a comment line of %d columns: at most %d", path, i+1, n, most)
			}
		}
		return nil
	}))
}

func TestReadyQueue(t *testing.T) {
	var q readyQueue
	a, b, c := new(membership), new(membership), new(membership)
	require.True(t, q.empty())
	require.Nil(t, q.pop())
	t.Run("is in order, and holds each once", func(t *testing.T) {
		require.True(t, q.push(a))
		require.False(t, q.push(a))
		require.False(t, q.push(b))
		require.False(t, q.push(c))
		require.False(t, q.push(b))
		for _, want := range []*membership{a, b, c} {
			require.False(t, q.empty())
			require.Same(t, want, q.pop())
		}
		require.True(t, q.empty())
		require.Nil(t, q.pop())
	})
	t.Run("takes back what it gave", func(t *testing.T) {
		require.True(t, q.push(b))
		require.False(t, q.push(a))
		require.Same(t, b, q.pop())
		require.False(t, q.push(b))
		require.Same(t, a, q.pop())
		require.Same(t, b, q.pop())
		require.Equal(t, readyQueue{}, q)
		require.Nil(t, b.nextReady)
	})
}
