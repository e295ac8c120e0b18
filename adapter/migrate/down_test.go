package migrate_test

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
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
	inBubble(t, "a quiet room that has members goes on, and loses nothing", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		h := w.migrating()
		defer h.Close(context.Background())
		l := w.join(h)
		empty, err := h.Connect(nil)
		require.NoError(t, err)
		require.NoError(t, h.Room("empty").Join(t.Context(), empty))
		time.Sleep(time.Minute)
		w.from.Cut()
		time.Sleep(time.Minute)
		require.NoError(t, h.Room("room").Publish(within(t), []byte("6")))
		text, gap := l.next()
		require.Equal(t, "6", text)
		require.False(t, gap)

		again := w.migrating() // which has to learn it from the new backend
		defer again.Close(context.Background())
		require.NoError(t, again.Room("empty").Publish(within(t), []byte("1")))
		require.Equal(t, numbers(3, 6), w.resume(again, w.at[2], 4), "positions of the old backend are good")
	})
	inBubble(t, "a quiet room without a history goes on at once, and tells of no gap", func(t *testing.T) {
		from, to := memory.NewBus(), memory.NewBus()
		var hubs []*fanout.Hub
		for range 2 {
			a, err := migrate.New("test", from.NewAdapter(), to.NewAdapter(), &migrate.Options{Settle: time.Second})
			require.NoError(t, err)
			h, err := fanout.New(a, nil)
			require.NoError(t, err)
			defer h.Close(context.Background())
			hubs = append(hubs, h)
		}
		l := (&world{t: t}).join(hubs[0])
		require.NoError(t, hubs[1].Room("room").Publish(t.Context(), []byte("1")))
		text, _ := l.next()
		require.Equal(t, "1", text)
		time.Sleep(time.Minute)
		from.Cut()
		time.Sleep(time.Minute)
		began := time.Now()
		require.NoError(t, hubs[1].Room("room").Publish(t.Context(), []byte("2")))
		text, gap := l.next()
		require.Equal(t, "2", text)
		require.False(t, gap)
		require.Less(t, time.Since(began), 100*time.Millisecond)
	})
	inBubble(t, "a room that was begun at the new backend alone is not copied into", func(t *testing.T) {
		w := newWorld(t, 20, 40)
		h := w.migrating()
		defer h.Close(context.Background())
		time.Sleep(time.Minute)
		only := w.hub(w.to.NewAdapter()) // of the second deploy
		defer only.Close(context.Background())
		theirs := w.join(only)
		require.NoError(t, only.Room("room").Publish(t.Context(), []byte("21")))
		ours := w.join(h)
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("22")))
		for _, want := range []string{"21", "22"} {
			text, gap := theirs.next()
			require.Equal(t, want, text)
			require.False(t, gap)
		}
		text, _ := ours.next()
		require.Equal(t, "22", text)
		got, err := h.Room("room").History(within(t), fanout.Position{}, 40)
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
