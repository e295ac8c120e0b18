package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// A journal keeps the end of what is written to it, for when a run fails, since
// few failures can be reproduced. It may also pass everything on at once.
type journal struct {
	mu   sync.Mutex // guards all below
	also io.Writer  // or nil
	kept []byte
	lost bool // the beginning was dropped
}

// journalSize is how many bytes a journal keeps at least.
const journalSize = 256 << 10

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.also != nil {
		j.also.Write(p) // errors are ignored
	}
	j.kept = append(j.kept, p...)
	if len(j.kept) > 2*journalSize {
		rest := j.kept[len(j.kept)-journalSize:]
		_, rest, _ = bytes.Cut(rest, []byte("\n")) // whole lines
		j.kept, j.lost = bytes.Clone(rest), true
	}
	return len(p), nil
}

func (j *journal) say(format string, args ...any) { fmt.Fprintf(j, format+"\n", args...) }

// print writes what is kept.
func (j *journal) print(out io.Writer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lost {
		fmt.Fprintln(out, "…")
	}
	out.Write(j.kept)
}
