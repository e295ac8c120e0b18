// Package logtest records what a Logger writes, for tests.
package logtest

import (
	"bytes"
	"log/slog"
	"sync"
)

// A Text is what a Logger has written. It may be read while more is written.
// The zero Text is empty.
type Text struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Logger returns a Logger that writes to t, a line for each record.
func (t *Text) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(t, nil)) }

// Write implements io.Writer.
func (t *Text) Write(line []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(line)
}

// String returns what has been written so far.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
