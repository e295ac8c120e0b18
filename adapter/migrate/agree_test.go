package migrate_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// copyPart has a hub copy the history of room up to an offset, and stop.
func (w *world) copyPart(upTo uint64) {
	w.to.Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
		if f.Channel == roomChannel && historyAt(w.t, w.to).Head.Offset >= upTo {
			fate.Refuse, fate.Err = true, adapter.Unsent(errors.New("full"))
		}
		return fate
	})
	h := w.flipped()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
	defer cancel()
	_, err := h.Room("room").History(ctx, fanout.Position{}, 0)
	require.Error(w.t, err)
	require.NoError(w.t, h.Close(w.t.Context()))
	w.to.Intercept(nil)
	require.Equal(w.t, upTo, historyAt(w.t, w.to).Head.Offset)
	time.Sleep(time.Minute) // its claim ends
}

// continueAtNew has a hub that has only the new backend publish x n times.
func (w *world) continueAtNew(n int) {
	h := w.hub(w.to.NewAdapter())
	for range n {
		require.NoError(w.t, h.Room("room").Publish(w.t.Context(), []byte("x")))
	}
	require.NoError(w.t, h.Close(w.t.Context()))
}

// repeat returns n texts, after others.
func repeat(before []string, text string, n int) []string {
	for range n {
		before = append(before, text)
	}
	return before
}

// A hub that has only the new backend continues a part of the copy. What it
// publishes has offsets that other messages have at the old backend. A member
// that has had those and comes back is told of a gap.
func TestCopyContinuedByOthers(t *testing.T) {
	inBubble(t, "messages in place of copies are delivered", func(t *testing.T) {
		w := newWorld(t, 50, 20)
		writeNote(t, w.to)
		time.Sleep(time.Second)
		w.copyPart(40)
		w.continueAtNew(15)
		h := w.flipped()
		defer h.Close(context.Background())
		require.Equal(t, repeat([]string{"missed 0, unknown true"}, "x", 15), w.resume(h, w.at[50], 15))
	})
	inBubble(t, "messages in place of copies that are no longer kept are a gap", func(t *testing.T) {
		w := newWorld(t, 50, 20)
		writeNote(t, w.to)
		time.Sleep(time.Second)
		w.copyPart(40)
		w.continueAtNew(30)
		h := w.flipped()
		defer h.Close(context.Background())
		require.Equal(t, repeat([]string{"missed 0, unknown true"}, "x", 20), w.resume(h, w.at[50], 20))
	})
	inBubble(t, "messages in place of copies that are kept in part are a gap", func(t *testing.T) {
		w := newWorld(t, 50, 20)
		writeNote(t, w.to)
		time.Sleep(time.Second)
		w.copyPart(40)
		w.continueAtNew(25) // of which 46 to 50 can be compared
		h := w.flipped()
		defer h.Close(context.Background())
		require.Equal(t, repeat([]string{"missed 0, unknown true"}, "x", 20), w.resume(h, w.at[45], 20))
	})
	inBubble(t, "messages in place of what the old backend no longer keeps are a gap", func(t *testing.T) {
		w := newWorld(t, 50, 20)
		time.Sleep(30 * time.Minute)
		writeNote(t, w.to)
		w.copyPart(40)
		w.continueAtNew(20)
		time.Sleep(30 * time.Minute) // so that the old ones have expired
		h := w.flipped()
		defer h.Close(context.Background())
		require.Equal(t, repeat([]string{"missed 0, unknown true"}, "x", 10), w.resume(h, w.at[50], 10))
	})
	inBubble(t, "a copy that another hub completes has no gap", func(t *testing.T) {
		w := newWorld(t, 50, 20)
		writeNote(t, w.to)
		time.Sleep(time.Second)
		w.copyPart(40)
		h := w.flipped()
		defer h.Close(context.Background())
		require.Equal(t, numbers(36, 50), w.resume(h, w.at[35], 15))
	})
}
