package fanout

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// Additions to the format are written when all hubs that are there can read
// them.
func TestCanWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h, err := New(bus.NewAdapter(), nil)
		require.NoError(t, err)
		defer h.Close(context.Background())
		h.hellos.SetLevel(wire.Level + 1) // as a later release would
		require.True(t, h.canWrite(wire.OldestLevel), "what all releases read")
		require.False(t, h.canWrite(wire.Level+1), "it does not know who is there")
		time.Sleep(4 * time.Second)
		require.True(t, h.canWrite(wire.Level+1), "it is alone")
		require.False(t, h.canWrite(wire.Level+2))

		old, err := New(bus.NewAdapter(), nil)
		require.NoError(t, err)
		time.Sleep(4 * time.Second)
		require.False(t, h.canWrite(wire.Level+1))
		require.NoError(t, old.Close(context.Background()))
		time.Sleep(4 * time.Minute)
		require.True(t, h.canWrite(wire.Level+1), "the old one is gone")

		// A hub that has not said hello counts as the oldest, as long as it is
		// heard.
		stranger := bus.NewAdapter()
		defer stranger.Close(context.Background())
		for seq := range uint64(10) {
			frame := wire.AppendHeader(nil, &wire.Header{Hub: 5, Stream: 1, Seq: seq + 1, Count: 1})
			_, err = stranger.Publish(t.Context(), h.names.Inbox(h.id), wire.AppendMessage(frame, &wire.Message{}))
			require.NoError(t, err)
			synctest.Wait()
			require.False(t, h.canWrite(wire.Level+1))
			time.Sleep(time.Minute)
		}
		time.Sleep(2 * time.Minute)
		require.True(t, h.canWrite(wire.Level+1))
	})
}

func TestHellosWhileTheBackendIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h, err := New(bus.NewAdapter(), nil)
		require.NoError(t, err)
		defer h.Close(context.Background())
		var hellos atomic.Int32
		hold := make(chan struct{})
		bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if _, err := wire.DecodeHello(f.Data); err == nil {
				hellos.Add(1)
			} else {
				<-hold
			}
			return memory.Fate{}
		})
		sent := make(chan error)
		go func() { sent <- h.Everyone().Publish(context.Background(), []byte("1")) }()
		time.Sleep(9 * time.Second)
		require.Zero(t, hellos.Load(), "two frames of a channel are never under way at a time")
		close(hold)
		require.NoError(t, <-sent)
		time.Sleep(10 * time.Second)
		require.NotZero(t, hellos.Load())
	})
}
