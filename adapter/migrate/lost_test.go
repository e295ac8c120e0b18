package migrate_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/stretchr/testify/require"
)

// migrating returns a hub that flips after some seconds.
func (w *world) migrating() *fanout.Hub {
	a, err := migrate.New("test", w.from.NewAdapter(), w.to.NewAdapter(), &migrate.Options{Settle: time.Second})
	require.NoError(w.t, err)
	return w.hub(a)
}

// A member of room, of whom the test asks what it gets.
type listener struct {
	t *testing.T
	m *fanout.Member
}

func (w *world) join(h *fanout.Hub) *listener {
	m, err := h.Connect(nil)
	require.NoError(w.t, err)
	require.NoError(w.t, h.Room("room").Join(w.t.Context(), m))
	return &listener{w.t, m}
}

// next returns the next message, and whether a gap came first.
func (l *listener) next() (text string, gap bool) {
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	for {
		msg, err := l.m.Receive(ctx)
		if errors.As(err, new(*fanout.GapError)) {
			gap = true
			continue
		}
		require.NoError(l.t, err)
		return string(msg.Data), gap
	}
}

// loseNew has the new backend lose all that it keeps.
func (w *world) loseNew() {
	w.to.Cut()
	w.to.Flush()
	time.Sleep(time.Second)
	w.to.Heal()
	time.Sleep(time.Second)
}

func TestNewBackendLosesHistory(t *testing.T) {
	for name, said := range map[string]bool{
		"members get all that is published after that":           true,
		"members do so in a room that was copied and then quiet": false,
	} {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, 50, 20)
			h := w.migrating()
			defer h.Close(context.Background())
			l := w.join(h)
			time.Sleep(time.Minute) // flipped
			if said {
				require.NoError(t, h.Room("room").Publish(t.Context(), []byte("51")))
				text, gap := l.next()
				require.Equal(t, "51", text)
				require.False(t, gap)
			} else {
				_, err := h.Room("room").History(t.Context(), fanout.Position{}, 100)
				require.NoError(t, err)
			}
			w.loseNew()
			for i, want := range []string{"a", "b", "c"} {
				require.NoError(t, h.Room("room").Publish(t.Context(), []byte(want)))
				text, gap := l.next()
				require.Equal(t, want, text)
				require.Equal(t, i == 0, gap, "one gap, and then no more")
			}
			got, err := h.Room("room").History(t.Context(), fanout.Position{}, 100)
			require.NoError(t, err)
			require.Len(t, got, 3, "what was lost does not come back")
			require.Equal(t, append([]string{"missed 0, unknown true"}, "a", "b", "c"), w.resume(h, w.at[45], 3))
		})
	}
}
