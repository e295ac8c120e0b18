package fanout_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

func TestSelectionUnkept(t *testing.T) {
	kept := &fanout.Options{Room: func(name string) fanout.RoomOptions {
		if name == "plain" {
			return fanout.RoomOptions{}
		}
		return fanout.RoomOptions{Retain: fanout.Retention{Messages: 100}}
	}}
	t.Run("carries frames of hubs only", func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, kept)
		m := connect(t, h, "x")
		stranger := bus.NewAdapter()
		_, err := stranger.Publish(within(t), "fanout:r:{x}", wire.AppendUnkept(nil, 7, 8, []byte("no frame")))
		require.NoError(t, err)
		publish(t, h.Room("x"), 1, 1)
		require.Equal(t, numbers(1, 1), receive(t, m, 1))
		require.EqualValues(t, 1, h.Stats().Malformed)
	})
	t.Run("passes the history by, in order", func(t *testing.T) {
		for name, bus := range map[string]*memory.Bus{"alone": nil, "memory": memory.NewBus()} {
			t.Run(name, func(t *testing.T) {
				a := newHub(t, bus, kept)
				b := a
				if bus != nil {
					b = newHub(t, bus, kept)
				}
				m := connect(t, b, "x", "plain")
				done := make(chan error, 1)
				for n := 1; n <= 9; n += 3 {
					publish(t, a.Room("x"), n, n)
					require.NoError(t, a.In("x").Unkept().Publish(within(t), fmt.Append(nil, n+1)))
					require.NoError(t, a.In("x").Unkept().PublishAsync(within(t), fmt.Append(nil, n+2), func(err error) { done <- err }))
					require.NoError(t, <-done)
				}
				require.Equal(t, numbers(1, 9), receive(t, m, 9))
				messages, err := a.Room("x").History(within(t), fanout.Position{}, 0)
				require.NoError(t, err)
				require.Len(t, messages, 3)
				late := connect(t, b)
				require.NoError(t, b.Room("x").Resume(within(t), late, messages[0].Position))
				require.Equal(t, []string{"4", "7"}, receive(t, late, 2))
				require.NoError(t, a.In("x").Unkept().Except(late.ID()).Publish(within(t), []byte("not for late")))
				publish(t, a.Room("x"), 10, 10)
				require.Equal(t, []string{"10"}, receive(t, late, 1))
				require.Equal(t, []string{"not for late", "10"}, receive(t, m, 2))
			})
		}
	})
	t.Run("has no effect in a room without a history", func(t *testing.T) {
		h := newHub(t, memory.NewBus(), kept)
		m := connect(t, h, "plain")
		require.NoError(t, h.In("plain").Unkept().Publish(within(t), []byte("1")))
		msg, err := m.Receive(within(t))
		require.NoError(t, err)
		require.Equal(t, "plain", msg.Room)
		require.Equal(t, h.ID(), msg.Sender)
	})
	t.Run("comes once, though it is sent again", func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, kept)
		m := connect(t, h, "x")
		again := true
		bus.Intercept(inRooms(func(context.Context, memory.Frame) memory.Fate {
			if again {
				again = false
				return memory.Fate{Err: fmt.Errorf("the answer is lost")}
			}
			return memory.Fate{}
		}))
		require.NoError(t, h.In("x").Unkept().Publish(within(t), []byte("1")))
		bus.Intercept(nil)
		publish(t, h.Room("x"), 2, 2)
		require.Equal(t, numbers(1, 2), receive(t, m, 2))
	})
	t.Run("fails within its time", func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, &fanout.Options{Room: kept.Room, PublishTimeout: 100 * time.Millisecond})
		connect(t, h, "x")
		bus.Cut()
		defer bus.Heal()
		require.ErrorIs(t, h.In("x").Unkept().Publish(context.Background(), nil), context.DeadlineExceeded)
		done := make(chan error, 1)
		require.NoError(t, h.In("x").Unkept().PublishAsync(within(t), nil, func(err error) { done <- err }))
		require.Error(t, <-done)
	})
}
