package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/stretchr/testify/require"
)

func keeping(messages int) *fanout.Options {
	return &fanout.Options{PublishTimeout: time.Minute, Room: func(string) fanout.RoomOptions {
		return fanout.RoomOptions{Retain: fanout.Retention{Messages: messages, Age: time.Hour}}
	}}
}

// A world is two buses, of which the old one has a history of room: messages 1
// to said, of which some are kept.
type world struct {
	t        *testing.T
	from, to *memory.Bus
	at       []fanout.Position // of each message; of 0 it is zero
	keep     int
}

func newWorld(t *testing.T, said, keep int) *world {
	w := &world{t: t, from: memory.NewBus(), to: memory.NewBus(), keep: keep, at: make([]fanout.Position, 1)}
	h := w.hub(w.from.NewAdapter())
	m, err := h.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, h.Room("room").Join(t.Context(), m))
	for i := 1; i <= said; i++ {
		require.NoError(t, h.Room("room").Publish(t.Context(), fmt.Append(nil, i)))
		msg, err := m.Receive(t.Context())
		require.NoError(t, err)
		w.at = append(w.at, msg.Position)
	}
	require.NoError(t, h.Close(t.Context()))
	return w
}

func (w *world) hub(a adapter.Adapter) *fanout.Hub {
	h, err := fanout.New(a, keeping(w.keep))
	require.NoError(w.t, err)
	return h
}

// flipped returns a hub that has flipped.
func (w *world) flipped() *fanout.Hub {
	a, err := migrate.New("test", w.from.NewAdapter(), w.to.NewAdapter(), nil)
	require.NoError(w.t, err)
	return w.hub(a)
}

// resume returns what a member gets that comes back.
func (w *world) resume(h *fanout.Hub, since fanout.Position, messages int) (got []string) {
	m, err := h.Connect(nil)
	require.NoError(w.t, err)
	defer m.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	require.NoError(w.t, h.Room("room").Resume(ctx, m, since))
	for messages > 0 {
		msg, err := m.Receive(ctx)
		if gap := new(fanout.GapError); errors.As(err, &gap) {
			got = append(got, fmt.Sprintf("missed %d, unknown %v", gap.Missed, gap.Unknown))
			continue
		}
		require.NoError(w.t, err)
		got = append(got, string(msg.Data))
		messages--
	}
	return got
}

func numbers(from, to int) (list []string) {
	for i := from; i <= to; i++ {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestHistory(t *testing.T) {
	inBubble(t, "positions of the old backend are good after the flip", func(t *testing.T) {
		w := newWorld(t, 50, 20)
		writeNote(t, w.to)
		time.Sleep(time.Second) // the clock goes on
		h := w.flipped()
		defer h.Close(context.Background())
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("51")))
		require.Equal(t, numbers(41, 51), w.resume(h, w.at[40], 11))
		require.Equal(t, numbers(51, 51), w.resume(h, w.at[50], 1))
		require.Equal(t, append([]string{"missed 21, unknown false"}, numbers(32, 51)...), w.resume(h, w.at[10], 20),
			"what the old backend had trimmed, and the copy since")
	})
	inBubble(t, "copies have the offsets that they had", func(t *testing.T) {
		w := newWorld(t, 50, 20)
		writeNote(t, w.to)
		time.Sleep(time.Second)
		h := w.flipped()
		defer h.Close(context.Background())
		require.Equal(t, numbers(31, 50), w.resume(h, fanout.Position{}, 20))
		a := w.to.NewAdapter()
		defer a.Close(context.Background())
		page, err := a.History(t.Context(), "fanout:r:{room}", adapter.Query{
			Limit: 100, Keep: adapter.Retention{Messages: 100, Age: time.Hour}, Time: time.Now(),
		})
		require.NoError(t, err)
		require.EqualValues(t, 50, page.Head.Offset)
		require.Len(t, page.Frames, 20, "the filler is trimmed")
		require.EqualValues(t, 31, page.Frames[0].At.Offset)
	})
	inBubble(t, "a hub with the new backend alone takes an old position for a gap", func(t *testing.T) {
		w := newWorld(t, 10, 20)
		writeNote(t, w.to)
		time.Sleep(time.Second)
		h := w.flipped()
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("11")))
		require.NoError(t, h.Close(t.Context()))
		h = w.hub(w.to.NewAdapter())
		defer h.Close(context.Background())
		require.Equal(t, append([]string{"missed 0, unknown true"}, numbers(1, 11)...), w.resume(h, w.at[5], 11))
	})
	inBubble(t, "an old history that has expired leaves its offset", func(t *testing.T) {
		w := newWorld(t, 10, 20)
		writeNote(t, w.to)
		time.Sleep(2 * time.Hour)
		h := w.flipped()
		defer h.Close(context.Background())
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("11")))
		require.Equal(t, []string{"missed 5, unknown false", "11"}, w.resume(h, w.at[5], 1))
		require.Equal(t, numbers(11, 11), w.resume(h, w.at[10], 1))
	})
	inBubble(t, "hubs that copy at the same time copy once", copiesOnce)
	inBubble(t, "a hub whose copy another one overtakes goes on", copyOvertaken)
	inBubble(t, "a history that cannot be copied yet is not begun anew", func(t *testing.T) {
		w := newWorld(t, 10, 20)
		writeNote(t, w.to)
		w.from.Cut()
		h := w.flipped()
		defer h.Close(context.Background())
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := h.Room("room").Publish(ctx, []byte("11"))
		require.ErrorIs(t, err, fanout.ErrUnsent)
		require.ErrorContains(t, err, "copy its history")
		w.from.Heal()
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("11")))
		require.Equal(t, numbers(6, 11), w.resume(h, w.at[5], 6))
	})
	inBubble(t, "a new backend with a history of its own is refused", func(t *testing.T) {
		w := newWorld(t, 10, 20)
		old := w.from
		w.from, w.to = w.to, w.from // its history began before that of the other
		time.Sleep(time.Second)
		h := w.hub(w.from.NewAdapter())
		require.NoError(t, h.Room("room").Publish(t.Context(), []byte("1")))
		require.NoError(t, h.Close(t.Context()))
		writeNote(t, old)
		h = w.flipped()
		defer h.Close(context.Background())
		err := h.Room("room").Publish(t.Context(), []byte("2"))
		require.ErrorIs(t, err, fanout.ErrBrokenHistory)
		require.ErrorContains(t, err, "delete it there")
	})
}

func copiesOnce(t *testing.T) {
	w := newWorld(t, 300, 200)
	writeNote(t, w.to)
	time.Sleep(time.Second)
	w.to.Intercept(func(context.Context, memory.Frame) memory.Fate {
		time.Sleep(time.Millisecond) // so that they overlap
		return memory.Fate{}
	})
	var hubs []*fanout.Hub
	var all sync.WaitGroup
	for range 3 {
		h := w.flipped()
		hubs = append(hubs, h)
		all.Go(func() {
			got, err := h.Room("room").History(t.Context(), w.at[250], 100)
			if err != nil || len(got) != 50 || string(got[49].Data) != "300" {
				t.Errorf("History returned %d messages and %v", len(got), err)
			}
		})
	}
	all.Wait()
	require.NoError(t, hubs[0].Room("room").Publish(t.Context(), []byte("301")))
	require.Equal(t, numbers(291, 301), w.resume(hubs[1], w.at[290], 11))
	for _, h := range hubs {
		require.NoError(t, h.Close(t.Context()))
	}
}

func copyOvertaken(t *testing.T) {
	w := newWorld(t, 50, 100)
	writeNote(t, w.to)
	time.Sleep(time.Second)
	var appended atomic.Int32
	w.to.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
		if f.Channel == "fanout:r:{room}" && appended.Add(1) == 10 {
			time.Sleep(20 * time.Second) // the claim ends meanwhile
		}
		return memory.Fate{}
	})
	one, two := w.flipped(), w.flipped()
	defer one.Close(context.Background())
	defer two.Close(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := one.Room("room").History(t.Context(), w.at[40], 100)
		result <- err
	}()
	time.Sleep(time.Second)
	got, err := two.Room("room").History(t.Context(), w.at[40], 100)
	require.NoError(t, err)
	require.Len(t, got, 10)
	require.NoError(t, <-result)
	require.NoError(t, one.Room("room").Publish(t.Context(), []byte("51")))
	require.Equal(t, numbers(41, 51), w.resume(two, w.at[40], 11))
}
