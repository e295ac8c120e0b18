package world

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// A Journal keeps the end of what is written to it, for when a run fails, since
// few failures can be reproduced. It may also pass everything on at once.
type Journal struct {
	Also io.Writer // gets everything at once; or nil. Set before use

	mu   sync.Mutex // guards all below
	kept []byte
	lost bool // the beginning was dropped
}

// journalSize is how many bytes a journal keeps at least.
const journalSize = 256 << 10

// Write implements io.Writer.
func (j *Journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.Also != nil {
		j.Also.Write(p) // errors are ignored
	}
	j.kept = append(j.kept, p...)
	if len(j.kept) > 2*journalSize {
		rest := j.kept[len(j.kept)-journalSize:]
		_, rest, _ = bytes.Cut(rest, []byte("\n")) // whole lines
		j.kept, j.lost = bytes.Clone(rest), true
	}
	return len(p), nil
}

// Say writes a line.
func (j *Journal) Say(format string, args ...any) { fmt.Fprintf(j, format+"\n", args...) }

// Print writes what is kept.
func (j *Journal) Print(out io.Writer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lost {
		fmt.Fprintln(out, "…")
	}
	out.Write(j.kept)
}
