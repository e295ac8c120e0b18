package migrate_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// Hubs of the second deploy that come too early begin histories at the new
// backend which are no copies.
func TestSecondDeployBeforeCopies(t *testing.T) {
	begin := func(t *testing.T, after time.Duration) (*world, *listener, *fanout.Hub) {
		w := newWorld(t, 5, 20)
		h := w.migrating()
		t.Cleanup(func() { _ = h.Close(context.Background()) })
		l := w.join(h)
		time.Sleep(after)
		only := w.hub(w.to.NewAdapter())
		t.Cleanup(func() { _ = only.Close(context.Background()) })
		return w, l, only
	}
	const flipped = 5 * time.Second // and not settled
	inBubble(t, "a member that was there before the flip misses nothing", func(t *testing.T) {
		_, l, only := begin(t, flipped)
		for i, want := range numbers(6, 12) { // the old history had five
			require.NoError(t, only.Room("room").Publish(t.Context(), []byte(want)))
			text, gap := l.next()
			require.Equal(t, want, text)
			require.Equal(t, i == 0, gap, "one gap, and then no more")
		}
	})
	inBubble(t, "nor does one that was told what is a copy too late", func(t *testing.T) {
		w, l, only := begin(t, flipped)
		var failing atomic.Bool
		failing.Store(true)
		w.to.InterceptReads(func(context.Context, string, adapter.Query) error {
			if failing.Load() {
				return memory.ErrCut
			}
			return nil
		})
		require.NoError(t, only.Room("room").Publish(t.Context(), []byte("6")))
		time.Sleep(time.Minute)
		failing.Store(false)
		text, _ := l.next()
		require.Equal(t, "6", text)
	})
	inBubble(t, "nor if the history is being copied meanwhile", func(t *testing.T) {
		for _, place := range []int32{1, 3, 5} { // of the first message among the copies
			w, l, only := begin(t, flipped)
			var frames atomic.Int32
			w.to.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
				if f.Channel == "fanout:r:{room}" && frames.Add(1) == place {
					if err := only.Room("room").Publish(t.Context(), []byte("6")); err != nil {
						t.Error(err)
					}
				}
				return memory.Fate{}
			})
			time.Sleep(time.Minute)
			require.NoError(t, only.Room("room").Publish(t.Context(), []byte("7")))
			var got []string
			for len(got) == 0 || got[len(got)-1] != "7" {
				text, _ := l.next()
				got = append(got, text)
			}
			require.Equal(t, "6", got[0])
			require.LessOrEqual(t, len(got), 3, "the copy that was under way comes as a new message")
		}
	})
	inBubble(t, "nor if the copy had stopped half-way", func(t *testing.T) {
		w, l, only := begin(t, flipped)
		var frames atomic.Int32
		w.to.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if f.Channel == roomChannel && frames.Add(1) == 4 {
				w.from.Cut()
				return memory.Fate{Refuse: true, Err: adapter.Unsent(memory.ErrCut)}
			}
			return memory.Fate{}
		})
		time.Sleep(20 * time.Second)
		require.EqualValues(t, 3, historyAt(t, w.to).Head.Offset)
		require.NoError(t, only.Room("room").Publish(t.Context(), []byte("6")))
		w.from.Heal()
		time.Sleep(time.Minute)
		require.NoError(t, only.Room("room").Publish(t.Context(), []byte("7")))
		text, gap := l.next()
		require.True(t, gap, "4 and 5 are lost to the new backend, and 6 has the place of 4")
		require.Equal(t, "6", text)
		text, _ = l.next()
		require.Equal(t, "7", text)
	})
	inBubble(t, "copies that another hub makes are not delivered again", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		hubs := []*fanout.Hub{w.migrating(), w.migrating()}
		var members []*listener
		for _, h := range hubs {
			defer h.Close(context.Background())
			members = append(members, w.join(h))
		}
		time.Sleep(flipped)
		for _, want := range numbers(6, 9) {
			require.NoError(t, hubs[0].Room("room").Publish(t.Context(), []byte(want)))
			for _, l := range members {
				text, gap := l.next()
				require.Equal(t, want, text)
				require.False(t, gap)
			}
		}
	})
}
