package contracttest

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

// A Historian is an adapter that keeps histories.
type Historian interface {
	adapter.Adapter
	adapter.Historian
}

// NoteFlip has the hubs of a migration that start after it begin flipped. It
// closes the adapter, which is one of the new backend.
func NoteFlip(t testing.TB, to Historian, migration string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	defer to.Close(ctx)
	require.NoError(t, to.Attach(Nobody{}))
	_, _, err := to.Append(ctx, "fanout:m:{"+migration+"}", adapter.Record{
		Frame: []byte("migrate1 flipped"), Messages: 1, Time: time.Now(), Publisher: "migrate", Stream: 1, Seq: 1,
		Keep: adapter.Retention{Messages: 10, Age: time.Hour},
	})
	require.NoError(t, err)
}

// Nobody is a receiver that does nothing.
type Nobody struct{}

func (Nobody) Receive(string, []byte) {}
func (Nobody) Interrupted(string)     {}
func (Nobody) Restored(string)        {}
