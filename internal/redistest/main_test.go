package redistest

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { Main(m) }

var (
	replicated = SharedCluster(Options{Primaries: 3, Replicas: 1})
	primaries  = SharedCluster(Options{Primaries: 3})
	single     = SharedServer(Options{})
)

// soon is the deadline of what should take no time at all on a busy machine.
const soon = 10 * time.Second

// eventually waits for a condition that a server brings about.
func eventually(t *testing.T, what string, cond func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	require.NoError(t, poll(ctx, what, cond))
}

// shortly returns a context for what is expected not to be answered.
func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func set(ctx context.Context, c rueidis.Client, key, value string) error {
	return c.Do(ctx, c.B().Set().Key(key).Value(value).Build()).Error()
}

func get(ctx context.Context, c rueidis.Client, key string) (string, error) {
	return c.Do(ctx, c.B().Get().Key(key).Build()).ToString()
}
