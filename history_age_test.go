package fanout_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// Messages expire although nobody publishes or reads.
func TestHistoryExpiresByItself(t *testing.T) {
	for name, bus := range map[string]func() *memory.Bus{
		"alone": func() *memory.Bus { return nil }, "memory": memory.NewBus,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &fanout.Options{Room: func(string) fanout.RoomOptions {
					return fanout.RoomOptions{Retain: fanout.Retention{Messages: 1000, Age: time.Second}}
				}}
				var h *fanout.Hub
				if b := bus(); b == nil {
					h = newHubOn(t, nil, o)
				} else {
					h = newHub(t, b, o)
				}
				before := heap()
				var read atomic.Int64
				for i := range 15 { // half of the rooms, which keep a few for those who resume
					m := connect(t, h, fmt.Sprint("room ", i))
					go func() {
						for range m.Messages(t.Context()) {
							read.Add(1)
						}
					}()
				}
				for i := range 300 {
					data := make([]byte, 64<<10)
					require.NoError(t, h.Room(fmt.Sprint("room ", i%30)).Publish(within(t), data))
				}
				synctest.Wait()
				require.EqualValues(t, 150, read.Load())
				require.Greater(t, heap()-before, 15<<20)
				time.Sleep(3 * time.Second) // in a bubble: no time at all
				synctest.Wait()
				require.Less(t, heap()-before, 4<<20)
				_, err := h.Room("room 7").History(within(t), fanout.Position{}, 0)
				require.NoError(t, err)
			})
		})
	}
}

// A member that resumes gets all that is kept, whatever the clocks of its
// publishers.
func TestResumeIgnoresTheClocksOfPublishers(t *testing.T) {
	for _, by := range []time.Duration{-5 * time.Hour, 5 * time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			bus := memory.NewBus()
			h := newHub(t, bus, keeping(100))
			m := connect(t, h, "x")
			other := bus.NewAdapter()
			defer other.Close(context.Background())
			for n := 1; n <= 5; n++ {
				head := wire.Header{Hub: 7, Time: uint64(time.Now().Add(by).UnixMilli()), Stream: 1, Seq: uint64(n), Count: 1}
				frame := wire.AppendMessage(wire.AppendHeader(nil, &head), &wire.Message{Data: fmt.Append(nil, n)})
				_, _, err := other.Append(t.Context(), "fanout:r:{x}", adapter.Record{
					Frame: frame, Messages: 1, Time: time.Now().Add(by), Keep: fanout.Retention{Messages: 100, Age: time.Hour},
				})
				require.NoError(t, err)
			}
			require.Equal(t, numbers(1, 5), receive(t, m, 5))
			late, err := h.Connect(nil)
			require.NoError(t, err)
			require.NoError(t, h.Room("x").Resume(within(t), late, fanout.Position{}))
			require.Equal(t, numbers(1, 5), receive(t, late, 5))
		})
	}
}
