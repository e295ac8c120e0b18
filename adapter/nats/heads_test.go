package nats

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter/nats/internal/numbers"
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

func TestHeadsYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heads
		took := func(channel string) time.Duration {
			began := time.Now()
			h.yield(t.Context(), channel, began)
			return time.Since(began)
		}
		claimed := func(id numbers.ID, wait time.Duration) {
			h.claimed(claim{id: id, wait: wait, channel: "a"}, time.Now())
		}
		claimed(1, time.Second)
		require.Zero(t, took("a"), "this hub does not append to it")
		h.set("a", head{seq: 1})
		claimed(1, time.Second)
		require.Zero(t, took("b"))
		require.Equal(t, time.Second, took("a"))
		require.Zero(t, took("a"), "the claim is over")
		claimed(1, time.Second)
		time.AfterFunc(time.Millisecond, func() { h.follow(&record{channel: "a"}, 2) })
		time.AfterFunc(2*time.Millisecond, func() { claimed(2, 0) })
		time.AfterFunc(3*time.Millisecond, func() { claimed(1, 0) })
		require.Equal(t, 3*time.Millisecond, took("a"), "until the claimant has appended, and no other")
		claimed(1, time.Second)
		claimed(2, 1500*time.Millisecond)
		claimed(3, time.Millisecond)
		claimed(1, 0)
		require.Equal(t, 1500*time.Millisecond, took("a"), "the longest claim counts")
		claimed(1, time.Second)
		time.Sleep(2 * time.Second)
		require.Zero(t, took("a"), "the claim is over")
		require.Empty(t, h.claims)
	})
}
