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

func TestHeadsYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heads
		took := func(channel string) time.Duration {
			began := time.Now()
			h.yield(t.Context(), channel, began)
			return time.Since(began)
		}
		claim := func(channel string) { h.claimed(channel, time.Now().Add(time.Second)) }
		claim("a")
		require.Zero(t, took("a"), "this hub does not append to it")
		h.set("a", head{seq: 1})
		claim("a")
		require.Zero(t, took("b"))
		require.Equal(t, time.Second, took("a"))
		require.Zero(t, took("a"), "a claim makes one record wait")
		claim("a")
		time.AfterFunc(time.Millisecond, func() { h.follow(&record{channel: "a"}, 2) })
		require.Equal(t, time.Millisecond, took("a"), "until another record has come")
		claim("a")
		time.Sleep(2 * time.Second)
		require.Zero(t, took("a"), "the claim is over")
	})
}
