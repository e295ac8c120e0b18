package contracttest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/stretchr/testify/require"
)

// A Historian is an adapter that keeps histories.
type Historian interface {
	adapter.Adapter
	adapter.Historian
}

// NoteFlip has the hubs of a migration that start after it begin flipped. It
// closes the adapter, which is one of the new backend. Hubs whose old backend
// works need [LogFlip] as well.
func NoteFlip(t testing.TB, to Historian, migration string) {
	t.Helper()
	appendFirst(t, to, migration, "migrate1 flipped")
}

// LogFlip is the entry of the hubs' log that they have flipped. It closes the
// adapter, which is one of the old backend.
func LogFlip(t testing.TB, from Historian, migration string) {
	t.Helper()
	appendFirst(t, from, migration, "migrate1 c 1 test")
}

// appendFirst appends the first entry of what hubs tell each other.
func appendFirst(t testing.TB, a Historian, migration, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	defer a.Close(ctx)
	require.NoError(t, a.Attach(Nobody{}))
	r := adapter.Record{
		Frame: []byte(text), Messages: 1, Time: time.Now(), Publisher: "migrate", Stream: 1, Seq: 1,
		Keep: adapter.Retention{Messages: 10, Age: time.Hour},
	}
	_, _, err := a.Append(ctx, "fanout:m:{"+migration+"}", r)
	for wait := (backoff.Backoff{}); errors.Is(err, adapter.ErrUnsent) && wait.Wait(ctx); { // as a hub does
		_, _, err = a.Append(ctx, "fanout:m:{"+migration+"}", r)
	}
	require.NoError(t, err)
}

// Nobody is a receiver that does nothing.
type Nobody struct{}

// Receive implements adapter.Receiver, and so do the others.
func (Nobody) Receive(string, []byte) {}

// Interrupted does nothing.
func (Nobody) Interrupted(string) {}

// Restored does nothing.
func (Nobody) Restored(string) {}
