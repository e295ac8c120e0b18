package main

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout/internal/redistest"
)

// The peer is left out of it: it would be fetched from a registry.
func TestLiveMeasuresEveryCase(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processor time is read from /proc")
	}
	r, err := run(t.Context(), liveSuite, &options{rounds: 1, duration: time.Second, quick: true}, io.Discard)
	if errors.Is(err, redistest.ErrUnavailable) {
		t.Skip(err)
	}
	require.NoError(t, err)
	keys := map[string][]string{"burst": {"all", "cpu"}, "steady": {"p50", "p99", "cpu"}, "steady, gathered": {"p50", "p99", "cpu"}}
	require.Len(t, r.cases, len(keys))
	for _, c := range r.cases {
		for _, key := range keys[c.name] {
			_, ok := c.median("fanout", key)
			require.True(t, ok, "%s has no %s", c.name, key)
		}
	}
}

func TestAHearingEndsWhenEveryoneHasHeardEverything(t *testing.T) {
	c := &audience{people: make([]*person, 2), next: 7, failed: make(chan error, 1)}
	h := c.open(2, time.Nanosecond)
	require.Error(t, h.heard(&h.ears[0], 9), "never said")
	require.NoError(t, h.heard(&h.ears[0], 6), "of an earlier hearing")
	require.NoError(t, h.heard(&h.ears[0], 7))
	require.Error(t, h.heard(&h.ears[0], 7), "twice")
	require.NoError(t, h.heard(&h.ears[0], 8))
	require.NoError(t, h.heard(&h.ears[1], 8))
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.await(soon, h), context.DeadlineExceeded)
	require.NoError(t, h.heard(&h.ears[1], 7))
	require.NoError(t, c.await(t.Context(), h))
	require.Len(t, h.delays(), 4)
}
