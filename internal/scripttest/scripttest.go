// Package scripttest tests machines by scripts: text files in testdata that
// have the events of a machine and, next to each, what the machine must decide.
// They can be read without Go.
package scripttest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write what the scripts in testdata give into them")

// Run plays each file of testdata whose name ends with .script. Play returns
// the script with the decisions that the machine has made, and the test fails
// if they differ from those in the file.
func Run(t *testing.T, play func(t *testing.T, script string) string) {
	files, err := filepath.Glob("testdata/*.script")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".script"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			is := play(t, string(text))
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(is), 0o644))
			}
			require.Equal(t, string(text), is)
		})
	}
}
