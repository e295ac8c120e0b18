package nats

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHeadsAppended(t *testing.T) {
	var h heads
	h.set("a", head{seq: 1})
	h.follow(&record{channel: "a"}, 3)
	h.appended("a", head{seq: 2})
	v, _ := h.get("a")
	require.Equal(t, uint64(3), v.seq, "what was received meanwhile is later")
	h.appended("a", head{seq: 4})
	v, _ = h.get("a")
	require.Equal(t, uint64(4), v.seq)
}

func TestHeadsAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heads
		h.set("a", head{seq: 1})
		began := time.Now()
		require.False(t, h.await(t.Context(), "a", 1, time.Second))
		require.Equal(t, time.Second, time.Since(began))
		require.True(t, h.await(t.Context(), "a", 0, time.Second), "it is known already")

		got := make(chan bool, 2)
		for range 2 {
			go func() { got <- h.await(t.Context(), "a", 1, time.Second) }()
		}
		synctest.Wait()
		h.follow(&record{channel: "b"}, 2)
		h.follow(&record{channel: "a"}, 3)
		require.True(t, <-got)
		require.True(t, <-got)
		require.Equal(t, time.Second, time.Since(began), "at once")

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.False(t, h.await(ctx, "a", 3, time.Second))
		require.Empty(t, h.awaited, "nothing is remembered of those that gave up")
	})
}

// A record that was received while the stream was asked is not forgotten.
func TestHeadsAsked(t *testing.T) {
	var h heads
	require.Equal(t, uint64(5), h.asked("a", 0, head{seq: 5}).seq)
	require.Equal(t, uint64(3), h.asked("a", 5, head{seq: 3}).seq, "the stream has fewer")
	h.follow(&record{channel: "a"}, 7)
	require.Equal(t, uint64(7), h.asked("a", 3, head{seq: 6}).seq)
	require.Equal(t, uint64(8), h.asked("a", 3, head{seq: 8}).seq)
}
