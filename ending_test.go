package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// rest receives what is left for a member, and returns its final error.
func rest(t testing.TB, m *fanout.Member) (got []string, final error) {
	t.Helper()
	for msg, err := range m.Messages(within(t)) {
		if errors.Is(err, fanout.ErrClosed) {
			return got, err
		}
		got = append(got, show(t, msg, err))
	}
	return got, nil
}

// requireDrained checks the final error of a member whose hub has drained.
func requireDrained(t testing.TB, err error) {
	t.Helper()
	require.ErrorIs(t, err, fanout.ErrClosed)
	var c *fanout.ClosedError
	require.ErrorAs(t, err, &c)
	require.Equal(t, &fanout.ClosedError{Reason: "hub is closing", Draining: true}, c)
}

func TestHubDrain(t *testing.T) {
	t.Run("lets all members receive what was acknowledged", func(t *testing.T) {
		bus := memory.NewBus()
		var hubs []*fanout.Hub
		for range 3 {
			hubs = append(hubs, newHub(t, bus, &fanout.Options{Window: fanout.Window{Messages: 4096}}))
		}
		m := connect(t, hubs[0], "x")
		for n := range 2000 {
			require.NoError(t, hubs[n%3].Room("x").Publish(within(t), fmt.Append(nil, n)))
		}
		drained := make(chan error)
		go func() { drained <- hubs[0].Drain(within(t)) }()
		got, final := rest(t, m)
		require.Len(t, got, 2000)
		requireDrained(t, final)
		requireDrained(t, m.Err())
		require.NoError(t, <-drained)
	})
	t.Run("refuses members and joins", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t, nil, nil)
			m := connect(t, h, "x")
			publish(t, h.Room("x"), 1, 3)
			drained := make(chan error)
			go func() { drained <- h.Drain(context.Background()) }()
			synctest.Wait()
			_, err := h.Connect(nil)
			require.ErrorIs(t, err, fanout.ErrClosed)
			require.ErrorIs(t, h.Room("y").Join(t.Context(), m), fanout.ErrClosed)
			require.NoError(t, h.Room("x").Publish(t.Context(), []byte("late")))
			require.NoError(t, m.Err())
			require.Empty(t, m.Rooms())
			require.Zero(t, h.Stats().Members)
			got, final := rest(t, m)
			require.Equal(t, numbers(1, 3), got)
			requireDrained(t, final)
			require.NoError(t, <-drained)
			<-m.Done()
		})
	})
	t.Run("ends a Join that waits", func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, nil)
		m := connect(t, h, "x")
		bus.Cut()
		defer bus.Heal()
		joined := make(chan error)
		go func() { joined <- h.Room("y").Join(within(t), m) }()
		drained := make(chan error)
		go func() { drained <- h.Drain(within(t)) }()
		require.ErrorIs(t, <-joined, fanout.ErrClosed)
		require.NoError(t, <-drained)
	})
	t.Run("ends what does not receive when its context ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t, nil, nil)
			idle, busy := connect(t, h, "x"), connect(t, h, "x")
			publish(t, h.Room("x"), 1, 1)
			require.Equal(t, []string{"1"}, receive(t, idle, 1))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := h.Drain(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "had not received everything: 2")
			requireDrained(t, idle.Err())
			requireDrained(t, busy.Err())
			require.NoError(t, h.Drain(t.Context()), "nobody is left")
		})
	})
	t.Run("does not wait for members that nobody receives from", func(t *testing.T) {
		h := newHub(t, nil, nil)
		m := connect(t, h, "x")
		require.NoError(t, h.Drain(within(t)))
		requireDrained(t, m.Err())
	})
	t.Run("wakes a Receive that waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t, nil, nil)
			m := connect(t, h, "x")
			ended := make(chan error)
			go func() {
				_, err := m.Receive(context.Background())
				ended <- err
			}()
			synctest.Wait()
			require.NoError(t, h.Drain(t.Context()))
			requireDrained(t, <-ended)
		})
	})
	t.Run("ends with the hub", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t, nil, nil)
			m := connect(t, h, "x")
			publish(t, h.Room("x"), 1, 1)
			drained := make(chan error)
			go func() { drained <- h.Drain(context.Background()) }()
			synctest.Wait()
			require.NoError(t, h.Close(t.Context()))
			require.ErrorIs(t, <-drained, fanout.ErrClosed)
			requireDrained(t, m.Err())
			require.ErrorIs(t, h.Drain(t.Context()), fanout.ErrClosed)
		})
	})
	t.Run("lets a member read direct messages, those to everyone, and histories", func(t *testing.T) {
		kept := func(string) fanout.RoomOptions {
			return fanout.RoomOptions{Retain: fanout.Retention{Messages: 2000}}
		}
		h := newHub(t, memory.NewBus(), &fanout.Options{Room: kept, Window: fanout.Window{Messages: 16}})
		m := connect(t, h)
		publish(t, h.Room("x"), 1, 1000)
		require.NoError(t, h.Room("x").Resume(within(t), m, fanout.Position{}))
		require.NoError(t, h.To(m.ID()).Publish(within(t), []byte("direct")))
		require.NoError(t, h.Everyone().Publish(within(t), []byte("all")))
		drained := make(chan error)
		go func() { drained <- h.Drain(within(t)) }()
		got, final := rest(t, m)
		require.ElementsMatch(t, append(numbers(1, 1000), "direct", "all"), got)
		requireDrained(t, final)
		require.NoError(t, <-drained)
	})
}

func TestMemberErr(t *testing.T) {
	h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 1}, Overflow: fanout.Disconnect})
	t.Run("is nil while the member lives", func(t *testing.T) {
		require.NoError(t, connect(t, h).Err())
	})
	t.Run("is ErrClosed after Close", func(t *testing.T) {
		m := connect(t, h)
		m.Close()
		require.Equal(t, fanout.ErrClosed, m.Err())
	})
	t.Run("tells a kick from a drain, whatever the reason", func(t *testing.T) {
		h := newHub(t, nil, nil)
		kicked, drained := connect(t, h), connect(t, h)
		require.NoError(t, h.To(kicked.ID()).Close(t.Context(), "hub is closing"))
		require.NoError(t, h.Drain(t.Context()))
		require.Equal(t, &fanout.ClosedError{Reason: "hub is closing"}, kicked.Err())
		requireDrained(t, drained.Err())
	})
	t.Run("is that of the kick for a member that reads yet when the hub drains", func(t *testing.T) {
		h := newHub(t, nil, nil)
		m := connect(t, h, "x")
		publish(t, h.Room("x"), 1, 1)
		require.NoError(t, h.In("x").Close(t.Context(), "kicked"))
		drained := make(chan error)
		go func() { drained <- h.Drain(within(t)) }()
		got, final := rest(t, m)
		require.Equal(t, []string{"1"}, got)
		require.NoError(t, <-drained)
		require.ErrorIs(t, final, m.Err())
		require.Equal(t, &fanout.ClosedError{Reason: "kicked"}, m.Err())
	})
	t.Run("is ErrSlow for a member that was too slow", func(t *testing.T) {
		m := connect(t, h, "x")
		publish(t, h.Room("x"), 1, 3)
		<-m.Done()
		require.Equal(t, fanout.ErrSlow, m.Err())
	})
}
