package migrate_test

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/stretchr/testify/require"
)

func TestOldBackendDownAfterFlip(t *testing.T) {
	within := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	inBubble(t, "a room that was copied goes on", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		h := w.migrating()
		defer h.Close(context.Background())
		l := w.join(h)
		time.Sleep(time.Minute)
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("6")))
		require.NoError(t, h.Room("new").Publish(t.Context(), []byte("1")))
		l.m.Close()
		time.Sleep(5 * time.Minute) // the channel is unsubscribed
		w.from.Cut()
		w.join(h)
		require.NoError(t, h.Room("room").Publish(within(t), []byte("7")))

		again := w.migrating()
		defer again.Close(context.Background())
		require.NoError(t, again.Room("room").Publish(within(t), []byte("8")))
		require.Equal(t, numbers(3, 8), w.resume(again, w.at[2], 6), "positions of the old backend are good")
		require.NoError(t, again.Room("new").Publish(within(t), []byte("2")), "a room that began after the flip")
		got, err := again.Room("new").History(within(t), fanout.Position{}, 10)
		require.NoError(t, err)
		require.Len(t, got, 2)
	})
	inBubble(t, "a room that was not copied waits, and is not begun anew", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		h := w.migrating()
		defer h.Close(context.Background())
		time.Sleep(time.Minute)
		w.from.Cut()
		require.ErrorContains(t, h.Room("room").Publish(within(t), []byte("6")), "copy its history")
		w.from.Heal()
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("6")))
		require.Equal(t, numbers(3, 6), w.resume(h, w.at[2], 4))
	})
}
