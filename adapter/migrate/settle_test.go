package migrate_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/fanoutgo/fanout/internal/logtest"
	"github.com/stretchr/testify/require"
)

// settling returns an adapter that a hub has, and what it logs. The hub has a
// member in room, and closes with the test.
func settling(t *testing.T, w *world) (*migrate.Adapter, *logtest.Text) {
	text := new(logtest.Text)
	a, err := migrate.New("test", w.from.NewAdapter(), w.to.NewAdapter(), &migrate.Options{
		Settle: time.Second, Logger: text.Logger(),
	})
	require.NoError(t, err)
	h := w.hub(a)
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	w.join(h)
	return a, text
}

func TestSettlement(t *testing.T) {
	inBubble(t, "Status and the log say when the second deploy may begin", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		a, text := settling(t, w)
		require.Equal(t, migrate.Unsettled, a.Status().Settlement)
		time.Sleep(5 * time.Second)
		s := a.Status()
		require.Equal(t, migrate.Flipped, s.Phase)
		require.Equal(t, migrate.Unsettled, s.Settlement)
		require.Contains(t, s.Waiting, "will copy the histories")
		time.Sleep(10 * time.Second)
		s = a.Status()
		require.Equal(t, migrate.Settled, s.Settlement)
		require.Zero(t, s.Left)
		require.Empty(t, s.Waiting)
		require.Equal(t, 1, strings.Count(text.String(), "no longer needs the old backend"))
		page := historyAt(t, w.to)
		require.EqualValues(t, 5, page.Head.Offset)
	})
	inBubble(t, "a hub gives up when it has not got on for ten minutes", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		a, text := settling(t, w)
		time.Sleep(5 * time.Second)
		w.from.Cut()
		time.Sleep(9 * time.Minute)
		s := a.Status()
		require.Equal(t, migrate.Settling, s.Settlement)
		require.Positive(t, s.Left)
		require.Contains(t, s.Waiting, memory.ErrCut.Error())
		require.NotContains(t, text.String(), "has made no progress")
		time.Sleep(2 * time.Minute)
		s = a.Status()
		require.Equal(t, migrate.GaveUp, s.Settlement)
		require.Positive(t, s.Left)
		require.Contains(t, text.String(), "still needs the old backend, has made no progress")
	})
	inBubble(t, "a hub that gave up settles when the old backend is back", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		a, _ := settling(t, w)
		time.Sleep(5 * time.Second)
		w.from.Cut()
		time.Sleep(12 * time.Minute)
		require.Equal(t, migrate.GaveUp, a.Status().Settlement)
		w.from.Heal()
		time.Sleep(2 * time.Minute)
		require.Equal(t, migrate.Settled, a.Status().Settlement)
		require.EqualValues(t, 5, historyAt(t, w.to).Head.Offset)
	})
	inBubble(t, "a hub is not settled while the new backend refuses copies", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		a, _ := settling(t, w)
		time.Sleep(5 * time.Second)
		w.to.InterceptReads(func(context.Context, string, adapter.Query) error { return adapter.ErrRefused })
		time.Sleep(time.Minute)
		s := a.Status()
		require.Equal(t, migrate.Settling, s.Settlement)
		require.Contains(t, s.Waiting, adapter.ErrRefused.Error())
		w.to.InterceptReads(nil)
		time.Sleep(time.Minute)
		require.Equal(t, migrate.Settled, a.Status().Settlement)
		require.EqualValues(t, 5, historyAt(t, w.to).Head.Offset)
	})
	inBubble(t, "a room that is first read after the flip, in vain, is copied", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		a, err := migrate.New("test", w.from.NewAdapter(), w.to.NewAdapter(), &migrate.Options{Settle: time.Second})
		require.NoError(t, err)
		defer a.Close(context.Background())
		require.NoError(t, a.Attach(nobody{}))
		everyone(t, w.from, 1)
		require.NoError(t, a.Subscribe(t.Context(), roomChannel))
		time.Sleep(5 * time.Second)
		w.from.InterceptReads(func(context.Context, string, adapter.Query) error { return memory.ErrCut })
		_, err = a.History(t.Context(), roomChannel, adapter.Query{Keep: roomKeep, Time: time.Now()})
		require.ErrorIs(t, err, memory.ErrCut)
		w.from.InterceptReads(nil)
		time.Sleep(time.Minute)
		require.Equal(t, migrate.Settled, a.Status().Settlement)
		require.EqualValues(t, 5, historyAt(t, w.to).Head.Offset)
	})
	inBubble(t, "closing ends it while it is under way", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		var text logtest.Text
		a, err := migrate.New("test", w.from.NewAdapter(), w.to.NewAdapter(), &migrate.Options{
			Settle: time.Second, Logger: text.Logger(),
		})
		require.NoError(t, err)
		require.NoError(t, a.Attach(nobody{}))
		everyone(t, w.from, 1)
		for i := range 100 { // more than are settled at a time
			require.NoError(t, a.Subscribe(t.Context(), fmt.Sprintf("fanout:r:{%d}", i)))
		}
		time.Sleep(5 * time.Second)
		w.from.Cut()
		time.Sleep(12 * time.Second)
		require.Equal(t, migrate.Settling, a.Status().Settlement)
		require.NoError(t, a.Close(t.Context()))
		require.Contains(t, text.String(), "closes while it still needs the old backend")
	})
	inBubble(t, "a hub settles when the old backend is back in time", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		a, _ := settling(t, w)
		time.Sleep(5 * time.Second)
		w.from.Cut()
		time.Sleep(9 * time.Minute)
		w.from.Heal()
		time.Sleep(time.Minute)
		require.Equal(t, migrate.Settled, a.Status().Settlement)
	})
	inBubble(t, "a copy that could not be marked is marked later", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		a, _ := settling(t, w)
		var failing atomic.Bool
		failing.Store(true)
		w.to.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if failing.Load() && strings.Contains(f.Channel, ":copied:") {
				return memory.Fate{Refuse: true, Err: adapter.Unsent(memory.ErrCut)}
			}
			return memory.Fate{}
		})
		time.Sleep(time.Minute)
		require.Equal(t, migrate.Settling, a.Status().Settlement)
		failing.Store(false)
		time.Sleep(time.Minute)
		require.Equal(t, migrate.Settled, a.Status().Settlement)
		w.from.Cut()
		again := w.flipped() // which has to learn it from the new backend
		defer again.Close(context.Background())
		require.NoError(t, again.Room("room").Publish(t.Context(), []byte("6")))
	})
	inBubble(t, "a room that members leave after the flip is copied", func(t *testing.T) {
		w := newWorld(t, 5, 20)
		a, err := migrate.New("test", w.from.NewAdapter(), w.to.NewAdapter(), &migrate.Options{Settle: time.Second})
		require.NoError(t, err)
		defer a.Close(context.Background())
		require.NoError(t, a.Attach(nobody{}))
		everyone(t, w.from, 1)
		require.NoError(t, a.Subscribe(t.Context(), roomChannel))
		_, err = a.History(t.Context(), roomChannel, adapter.Query{Keep: roomKeep, Time: time.Now()})
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.Equal(t, migrate.Flipped, a.Status().Phase)
		require.NoError(t, a.Unsubscribe(t.Context(), roomChannel))
		time.Sleep(time.Minute)
		require.Equal(t, migrate.Settled, a.Status().Settlement)
		require.EqualValues(t, 5, historyAt(t, w.to).Head.Offset)
	})
}

const roomChannel = "fanout:r:{room}"

var roomKeep = adapter.Retention{Messages: 20, Age: time.Hour}

// historyAt returns the head of the history of room on a bus.
func historyAt(t *testing.T, bus *memory.Bus) adapter.Page {
	a := bus.NewAdapter()
	defer a.Close(context.Background())
	page, err := a.History(t.Context(), roomChannel, adapter.Query{Keep: roomKeep, Time: time.Now()})
	require.NoError(t, err)
	return page
}
