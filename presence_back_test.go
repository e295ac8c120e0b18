package fanout_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A hub is taken for gone by another one that is wrong, and does not learn of
// it. Its last announcement comes in just that time. When it says that it is
// there, it is asked whom it has announced; and asked again if that is lost.
func TestPresenceOfAHubThatIsBack(t *testing.T) {
	presenceBubble(t, fanout.RoomOptions{}, func(t *testing.T, f *fleet, room string) {
		w := watchRoom(t, enter(t, f.hubs[0], room, "watcher", ""))
		time.Sleep(10*time.Second + 100*time.Millisecond) // hubs probe each other at quarters of a second
		enter(t, f.hubs[2], room, "ann", "")
		time.Sleep(5*time.Second - time.Millisecond)
		w.require(t, "ann", "watcher")
		number, err := strconv.ParseUint(f.hubs[2].ID(), 16, 64)
		require.NoError(t, err)
		says := func(to *fanout.Hub, p control.Payload) {
			t.Helper()
			frame := wire.AppendControl(nil, 0xbeef, uint64(time.Now().UnixMilli()), p.Append(nil))
			_, err := f.nodes[1].Publish(t.Context(), fmt.Sprintf("fanout:i:{%s}", to.ID()), frame)
			require.NoError(t, err)
			synctest.Wait()
		}
		says(f.hubs[0], &control.Verdict{Gone: true, Hub: number})
		w.require(t, "watcher")
		time.Sleep(time.Millisecond) // the last announcement is repeated, 5 s after it
		synctest.Wait()
		w.require(t, "watcher")
		var lost atomic.Bool
		f.bus.Intercept(func(_ context.Context, frame memory.Frame) memory.Fate {
			_, payload, err := wire.DecodeControl(frame.Data)
			q, ok := decoded(payload).(*control.Question)
			return memory.Fate{Drop: err == nil && ok && q.Op == control.OpPresence && lost.CompareAndSwap(false, true)}
		})
		says(f.hubs[2], &control.Verdict{Hub: number}) // it says hello again
		require.True(t, lost.Load(), "it is asked")
		time.Sleep(10 * time.Second)
		w.require(t, "ann", "watcher")
	})
}

// A hub that was cut off while another one started asks everybody afterwards,
// where the backend does not count. If the answer of the new hub is lost, it is
// asked again when it is known, however long that takes.
func TestPresenceOfAHubThatStartedMeanwhile(t *testing.T) {
	for _, lose := range []time.Duration{500 * time.Millisecond, 8 * time.Second} {
		t.Run(lose.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testStartedMeanwhile(t, lose) })
		})
	}
}

// testStartedMeanwhile has everything that the new hub says get lost for a time
// after the other hub is back.
func testStartedMeanwhile(t *testing.T, lose time.Duration) {
	o := watched(fanout.RoomOptions{})
	f := newFleet(t, 2, false, o)
	w := watchRoom(t, enter(t, f.hubs[0], "x", "ann", ""))
	enter(t, f.hubs[1], "x", "bob", "")
	time.Sleep(10 * time.Second)
	f.nodes[0].Cut()
	enter(t, f.start(t, false, o), "x", "cat", "")
	time.Sleep(20 * time.Second) // it announces cat, and says so again
	began := time.Now()
	var lost atomic.Int32
	f.bus.Intercept(func(_ context.Context, frame memory.Frame) memory.Fate {
		if frame.From != f.nodes[2] || time.Since(began) > lose {
			return memory.Fate{}
		}
		lost.Add(1)
		return memory.Fate{Miss: []*memory.Adapter{f.nodes[0]}}
	})
	f.nodes[0].Heal()
	time.Sleep(lose)
	require.NotZero(t, lost.Load())
	time.Sleep(20 * time.Second)
	w.require(t, "ann", "bob", "cat")
}

// A hub that has just started asks hubs that it does not know yet, where the
// backend does not count. If the answer of one is lost it is asked again when
// it is known.
func TestPresenceOfAHubThatHasJustStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := watched(fanout.RoomOptions{})
		f := newFleet(t, 2, false, o)
		enter(t, f.hubs[0], "x", "ann", "")
		enter(t, f.hubs[1], "x", "bob", "")
		time.Sleep(10 * time.Second)
		began := time.Now()
		var lost atomic.Int32
		f.bus.Intercept(func(_ context.Context, frame memory.Frame) memory.Fate {
			_, payload, err := wire.DecodeControl(frame.Data)
			if err != nil || time.Since(began) > 500*time.Millisecond {
				return memory.Fate{}
			}
			switch decoded(payload).(type) {
			case *control.Answer:
				if frame.From != f.nodes[1] {
					return memory.Fate{}
				}
				lost.Add(1)
			case *control.Roster:
			default:
				return memory.Fate{}
			}
			return memory.Fate{Drop: true}
		})
		started := f.start(t, false, o)
		w := watchRoom(t, enter(t, started, "x", "cat", ""))
		time.Sleep(10 * time.Second)
		require.NotZero(t, lost.Load())
		w.require(t, "ann", "bob", "cat")
	})
}
