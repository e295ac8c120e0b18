package migrate_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/stretchr/testify/require"
)

// The old backend keeps a frame, and the answer is lost. The hub repeats it
// after the flip.
func TestDoubtAtTheFlip(t *testing.T) {
	inBubble(t, "adapter", func(t *testing.T) {
		const channel = "fanout:r:{room}"
		keep := adapter.Retention{Messages: 100, Age: time.Hour}
		from, to := memory.NewBus(), memory.NewBus()
		a, err := migrate.New("test", from.NewAdapter(), to.NewAdapter(), &migrate.Options{Settle: time.Millisecond})
		require.NoError(t, err)
		require.NoError(t, a.Attach(nobody{}))
		defer a.Close(context.Background())
		require.NoError(t, a.Subscribe(t.Context(), "fanout:a:{everyone}"))
		from.Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
			if f.Channel == channel {
				fate.Err = errors.New("lost on the way back")
			}
			return fate
		})
		r := adapter.Record{Frame: []byte("x"), Messages: 1, Keep: keep, Time: time.Now(), Publisher: "me", Stream: 1, Seq: 1}
		_, _, err = a.Append(t.Context(), channel, r)
		require.Error(t, err)
		require.NotErrorIs(t, err, adapter.ErrUnsent)
		for range 100 {
			if a.Status().Phase == migrate.Flipped {
				break
			}
			time.Sleep(10 * time.Second)
		}
		require.Equal(t, migrate.Flipped, a.Status().Phase, a.Status().Waiting)
		_, n, err := a.Append(t.Context(), channel, r)
		require.NoError(t, err)
		require.Equal(t, -1, n)
		page, err := a.History(t.Context(), channel, adapter.Query{Limit: 100, Keep: keep, Time: time.Now()})
		require.NoError(t, err)
		require.Len(t, page.Frames, 1)
	})
}

// The same with hubs: a message is in the history once.
func TestHubInDoubt(t *testing.T) {
	inBubble(t, "hub", func(t *testing.T) {
		w := newWorld(t, 3, 100)
		a, err := migrate.New("test", w.from.NewAdapter(), w.to.NewAdapter(), &migrate.Options{Settle: time.Millisecond})
		require.NoError(t, err)
		h := w.hub(a)
		defer h.Close(context.Background())
		m, err := h.Connect(nil)
		require.NoError(t, err)
		require.NoError(t, h.Room("room").Join(t.Context(), m))
		n := 0
		w.from.Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
			if f.Channel == "fanout:r:{room}" {
				fate.Err = errors.New("lost on the way back")
				if n++; n > 1 {
					fate.Refuse, fate.Err = true, adapter.Unsent(errors.New("full"))
				}
			}
			return fate
		})
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("4")))
		require.Equal(t, migrate.Flipped, a.Status().Phase, a.Status().Waiting)
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("5")))
		require.Equal(t, numbers(1, 5), append([]string{"1"}, w.resume(h, w.at[1], 4)...), "resumed")
		all, err := h.Room("room").History(t.Context(), w.at[0], 0)
		require.NoError(t, err)
		var got []string
		for _, m := range all {
			got = append(got, string(m.Data))
		}
		require.Equal(t, numbers(1, 5), got)
	})
}
