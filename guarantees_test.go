package fanout_test

// One test for each numbered guarantee of the package doc, on the memory
// adapter. Package sharded holds them against Redis Clusters and their faults.

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
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestGuarantee1JoinedMeansJoined(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, nil), newHub(t, bus, nil)
	for n := range 200 {
		room := fmt.Sprint("room", n)
		m := connect(t, a, room)
		require.NoError(t, b.Room(room).Publish(within(t), []byte("first")))
		require.Equal(t, []string{"first"}, receive(t, m, 1))
	}
}

func TestGuarantee1JoinWaitsForTheBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a, b := newHubOn(t, node, nil), newHub(t, bus, nil)
		m := connect(t, a)
		synctest.Wait()
		node.Cut()
		joined := make(chan error, 1)
		go func() { joined <- a.Room("x").Join(within(t), m) }()
		synctest.Wait()
		require.Empty(t, joined, "the backend has not confirmed")
		require.Empty(t, m.Rooms())
		node.Heal()
		require.NoError(t, <-joined)
		require.NoError(t, b.Room("x").Publish(within(t), []byte("first")))
		require.Equal(t, []string{"first"}, receive(t, m, 1))
	})
}

func TestGuarantee2OneOrder(t *testing.T) {
	bus := memory.NewBus()
	const hubs, each = 4, 200
	var members []*fanout.Member
	var all []*fanout.Hub
	for range hubs {
		h := newHub(t, bus, &fanout.Options{Window: fanout.Window{Messages: 2 * hubs * each}})
		all = append(all, h)
		members = append(members, connect(t, h, "x"), connect(t, h, "x"))
	}
	inParallel(hubs*4, func(i int) {
		for n := range each / 4 {
			if err := all[i%hubs].Room("x").Publish(within(t), fmt.Appendf(nil, "%d.%d", i, n)); err != nil {
				t.Error(err)
			}
		}
	})
	first := receive(t, members[0], hubs*each)
	for _, m := range members[1:] {
		require.Equal(t, first, receive(t, m, hubs*each))
	}
}

// A retried message that a hub may have missed the first time is not delivered
// where it would break the order that the others saw.
func TestGuarantee2OneOrderWhenAPublishIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a, b, c := newHub(t, bus, nil), newHub(t, bus, nil), newHubOn(t, node, nil)
		m, other := connect(t, c, "x"), connect(t, b, "x")
		publish(t, a.Room("x"), 1, 1)
		require.Equal(t, []string{"1"}, receive(t, m, 1))

		// a's next message reaches b, not c, and a does not know.
		node.CutSubscriber()
		var first atomic.Bool
		retry := make(chan struct{})
		bus.Intercept(func(ctx context.Context, f memory.Frame) memory.Fate {
			if string(f.Data[len(f.Data)-2:]) != "a2" {
				return memory.Fate{}
			}
			if first.CompareAndSwap(false, true) {
				return memory.Fate{Err: errors.New("connection reset")}
			}
			<-retry
			return memory.Fate{}
		})
		sent := make(chan error, 1)
		go func() { sent <- a.Room("x").Publish(within(t), []byte("a2")) }()
		time.Sleep(time.Second) // of the bubble: the second attempt waits in the interceptor
		node.Heal()
		require.NoError(t, b.Room("x").Publish(within(t), []byte("b1")))
		require.Equal(t, []string{"1", "a2", "b1"}, receive(t, other, 3))
		close(retry)
		require.NoError(t, <-sent)
		require.Equal(t, []string{"gap 0+", "b1", "gap 1"}, receive(t, m, 3), "a2 is reported, not delivered after b1")
	})
}

// A primary that was cut off may pass on, much later, frames that waited there.
// They are not delivered after later messages.
func TestGuarantee2OneOrderWhenAMessageComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		h, other := newHubOn(t, node, nil), newHub(t, bus, nil)
		m := connect(t, h, "x")
		say := playHub(t, bus, "x")
		say(1, time.Now(), "1")
		before := time.Now()
		time.Sleep(time.Second)
		node.CutSubscriber()
		node.Heal()
		publish(t, other.Room("x"), 2, 2)
		say(2, before, "late")
		say(3, time.Now(), "3")
		require.Equal(t, []string{"1", "gap 0+", "2", "gap 1", "3"}, receive(t, m, 5))

		// The first hub to be heard again breaks no order.
		node.CutSubscriber()
		node.Heal()
		say(4, before, "4")
		require.Equal(t, []string{"gap 0+", "4"}, receive(t, m, 2))
	})
}

func TestGuarantee3NoSilentLoss(t *testing.T) {
	bus := memory.NewBus()
	deaf := bus.NewAdapter()
	a, b := newHub(t, bus, nil), newHubOn(t, deaf, nil)
	m := connect(t, b, "x")
	room := a.Room("x")
	publish(t, room, 1, 3)
	bus.Intercept(func(context.Context, memory.Frame) memory.Fate {
		return memory.Fate{Miss: []*memory.Adapter{deaf}}
	})
	publish(t, room, 4, 8)
	bus.Intercept(nil)
	publish(t, room, 9, 9)
	require.Equal(t, []string{"1", "2", "3", "gap 5", "9"}, receive(t, m, 5))

	deaf.CutSubscriber()
	publish(t, room, 10, 11)
	deaf.Heal()
	got := receive(t, m, 1)
	require.Equal(t, []string{"gap 0+"}, got, "told as soon as the link is back")
	publish(t, room, 12, 12)
	require.Equal(t, []string{"gap 2", "12"}, receive(t, m, 2), "the publisher's next message tells the number")
	require.EqualValues(t, 7, b.Stats().Missed)
}

// Direct messages and those to everyone have channels of their own. Members
// that have had none are not told when these are interrupted; members that have
// had some are.
func TestGuarantee3NoSilentLossOfDirectMessages(t *testing.T) {
	for _, used := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			node := bus.NewAdapter()
			a, b := newHub(t, bus, nil), newHubOn(t, node, nil)
			m := connect(t, b)
			require.NoError(t, b.Health(within(t)))
			if used {
				require.NoError(t, a.To(m.ID()).Publish(within(t), []byte("1")))
				require.NoError(t, a.Everyone().Publish(within(t), []byte("2")))
				require.ElementsMatch(t, []string{"1", "2"}, receive(t, m, 2))
			}
			node.CutSubscriber()
			node.Heal()
			synctest.Wait()
			require.NoError(t, b.Everyone().Local().Publish(within(t), []byte("end")))
			msg, err := m.Receive(within(t))
			if used {
				require.Equal(t, &fanout.GapError{Unknown: true}, err, "once for both")
				msg, err = m.Receive(within(t))
			}
			require.NoError(t, err)
			require.Equal(t, "end", string(msg.Data))
		})
	}
}

func TestGuarantee3NoSilentLossOfTheSlow(t *testing.T) {
	h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 8}})
	slow, fast := connect(t, h, "x"), connect(t, h, "x")
	for n := 1; n <= 30; n++ {
		publish(t, h.Room("x"), n, n)
		require.Equal(t, numbers(n, n), receive(t, fast, 1))
	}
	require.Equal(t, append([]string{"gap 22"}, numbers(23, 30)...), receive(t, slow, 9))
	publish(t, h.Room("x"), 31, 31)
	require.Equal(t, []string{"31"}, receive(t, slow, 1), "once only")
}

// A hub without members in the room that publishes rarely continues its
// numbers.
func TestGuarantee3NoSilentLossOfARarePublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a, b := newHub(t, bus, nil), newHubOn(t, node, nil)
		m := connect(t, b, "x")
		say := func(n int) {
			publish(t, a.Room("x"), n, n)
			time.Sleep(time.Minute)
			require.Zero(t, a.Stats().Rooms, "the room is forgotten, its numbers are not")
		}
		say(1)
		node.CutSubscriber()
		say(2)
		say(3)
		node.Heal()
		say(4)
		require.Equal(t, []string{"1", "gap 2+", "4"}, receive(t, m, 3))
	})
}

// A hub may have missed more than even a wide window holds.
func TestGuarantee4WithHistoryNoLossOfMoreThanAWideWindow(t *testing.T) {
	for _, overflow := range []fanout.Overflow{fanout.Skip, fanout.Latest, fanout.Disconnect} {
		t.Run(fmt.Sprint("overflow ", overflow), func(t *testing.T) {
			bus := memory.NewBus()
			node := bus.NewAdapter()
			o := keeping(100_000)
			o.Window.Messages, o.Overflow = 16, overflow
			a, b := newHub(t, bus, o), newHubOn(t, node, o)
			reads, stuck := connect(t, b, "x"), connect(t, b, "x")
			publish(t, a.Room("x"), 1, 1)
			require.Equal(t, numbers(1, 1), receive(t, reads, 1))
			node.CutSubscriber()
			for n := 2; n <= 50_000; n++ {
				require.NoError(t, a.Room("x").PublishAsync(within(t), fmt.Append(nil, n), nil))
			}
			publish(t, a.Room("x"), 50_001, 50_001)
			node.Heal()
			connect(t, b, "x")
			require.Equal(t, numbers(2, 50_001), receive(t, reads, 50_000))
			if overflow == fanout.Disconnect {
				said := 50_001
				require.Eventually(t, func() bool {
					said++
					publish(t, a.Room("x"), said, said)
					select {
					case <-stuck.Done():
						return true
					default:
						receive(t, reads, 1)
						return false
					}
				}, 20*time.Second, 10*time.Millisecond, "a member that does not read is slow all the same")
			}
		})
	}
}

func TestGuarantee4WithHistoryNoLoss(t *testing.T) {
	bus := memory.NewBus()
	deaf := bus.NewAdapter()
	a, b := newHub(t, bus, keeping(1000)), newHubOn(t, deaf, keeping(1000))
	m := connect(t, b, "x")
	room := a.Room("x")
	publish(t, room, 1, 3)

	// Frames that are lost silently are noticed with the next one.
	bus.Intercept(func(context.Context, memory.Frame) memory.Fate {
		return memory.Fate{Miss: []*memory.Adapter{deaf}}
	})
	publish(t, room, 4, 8)
	bus.Intercept(nil)
	publish(t, room, 9, 9)
	require.Equal(t, numbers(1, 9), receive(t, m, 9))

	// Messages from while the link was broken come when it is back.
	deaf.CutSubscriber()
	publish(t, room, 10, 20)
	deaf.Heal()
	require.Equal(t, numbers(10, 20), receive(t, m, 11))
	connect(t, b, "x") // it waits until nothing is missing

	// A home that moves in good order loses nothing, wherever it goes.
	publish(t, room, 21, 22)
	bus.Failover(0, false)
	deaf.Move()
	publish(t, room, 23, 24)
	require.Equal(t, numbers(21, 24), receive(t, m, 4))
	nothing(t, b, m)
	require.Zero(t, b.Stats().Missed)
}

// While a room catches up with much more than its window holds, members that
// read lose nothing.
func TestGuarantee4WithHistoryNoLossOfMoreThanTheWindow(t *testing.T) {
	bus := memory.NewBus()
	deaf := bus.NewAdapter()
	o := keeping(10000)
	o.Window = fanout.Window{Messages: 64}
	a, b := newHub(t, bus, o), newHubOn(t, deaf, o)
	m, stuck := connect(t, b, "x"), connect(t, b, "x")
	deaf.CutSubscriber()
	publish(t, a.Room("x"), 1, 5000)
	deaf.Heal()
	require.Equal(t, numbers(1, 5000), receive(t, m, 5000))
	require.NoError(t, stuck.Close())
}

func TestGuarantee4TrimmedIsAGapWithItsNumber(t *testing.T) {
	bus := memory.NewBus()
	deaf := bus.NewAdapter()
	a, b := newHub(t, bus, keeping(10)), newHubOn(t, deaf, keeping(10))
	m := connect(t, b, "x")
	publish(t, a.Room("x"), 1, 2)
	require.Equal(t, numbers(1, 2), receive(t, m, 2))
	deaf.CutSubscriber()
	publish(t, a.Room("x"), 3, 30)
	deaf.Heal()
	require.Equal(t, append([]string{"gap 18"}, numbers(21, 30)...), receive(t, m, 11))
	publish(t, a.Room("x"), 31, 31)
	require.Equal(t, numbers(31, 31), receive(t, m, 1), "it is counted once")
	require.EqualValues(t, 18, b.Stats().Missed)
}

// Messages that a server has lost when another takes over are reported: at once
// as Unknown, and with their number when each publisher is heard again.
func TestGuarantee4WhatTheServerLostIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a, b, c := newHub(t, bus, keeping(100)), newHubOn(t, node, keeping(100)), newHub(t, bus, keeping(100))
		m, witness := connect(t, b, "x"), connect(t, a, "x")
		publish(t, a.Room("x"), 1, 3)
		require.Equal(t, numbers(1, 3), receive(t, m, 3))
		node.CutSubscriber()
		publish(t, a.Room("x"), 4, 8) // 4 and 5 are there in time for the replica
		bus.Failover(3, false)
		node.Heal()
		require.Equal(t, []string{"4", "5", "gap 0+"}, sortGap(receive(t, m, 3)))
		require.NoError(t, c.Room("x").Publish(within(t), []byte("c1")))
		require.Equal(t, []string{"c1"}, receive(t, m, 1))
		publish(t, a.Room("x"), 9, 9)
		require.Equal(t, []string{"gap 3", "9"}, receive(t, m, 2))

		// Members that had received lost messages are told, too, and have one order.
		require.Equal(t, numbers(1, 8), receive(t, witness, 8))
		require.Equal(t, []string{"gap 0+", "c1", "9"}, receive(t, witness, 3))
	})
}

// A server that was replaced and does not know it yet takes a message, and its
// publisher, which was not told that, sends it to the new server. Members get
// it at its place in the history.
func TestGuarantee4WhatAReplacedServerTookIsDeliveredIfItIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := &forger{Adapter: bus.NewAdapter()}
		a, b, c := newHub(t, bus, keeping(100)), newHubOn(t, node, keeping(100)), newHub(t, bus, keeping(100))
		m := connect(t, b, "x")
		publish(t, a.Room("x"), 1, 2)
		require.Equal(t, numbers(1, 1), receive(t, m, 1))
		second, err := m.Receive(within(t))
		require.NoError(t, err)
		bus.Failover(0, false)
		publish(t, c.Room("x"), 101, 101)
		require.Equal(t, numbers(101, 101), receive(t, m, 1))
		node.hub.ReceiveKept(channelX, adapter.KeptFrame{
			At: adapter.Position{Epoch: second.Position.Epoch >> 20, Offset: 3}, Frame: frameOf(numberOf(t, a), 1, 3, "3"),
		})
		publish(t, c.Room("x"), 102, 102)
		publish(t, a.Room("x"), 3, 4)
		require.Equal(t, []string{"gap 0+", "102", "3", "4"}, receive(t, m, 4))
		require.Zero(t, b.Stats().Missed)
	})
}

func TestGuarantee5OnceForAMemberOfSeveralRooms(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, nil), newHub(t, bus, nil)
	both, one := connect(t, b, "x", "y", "z"), connect(t, b, "y")
	for n := range 20 {
		require.NoError(t, a.In("x", "y", "z", "y").Publish(within(t), fmt.Append(nil, n)))
		require.Equal(t, []string{fmt.Sprint(n)}, receive(t, both, 1))
		require.Equal(t, []string{fmt.Sprint(n)}, receive(t, one, 1))
	}
	// Wait until all copies are here, then there must be nothing.
	for _, room := range []string{"x", "y", "z"} {
		require.NoError(t, a.Room(room).Publish(within(t), []byte(room)))
	}
	require.ElementsMatch(t, []string{"x", "y", "z"}, receive(t, both, 3))
}

// The copy in the second room is late: the member has joined that room since it
// got the first.
func TestGuarantee5OnceForAMemberThatJoinsBetweenCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, nil)
		m := connect(t, h, "x")
		connect(t, h, "y")
		late := make(chan struct{})
		bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if f.Channel == "fanout:r:{y}" {
				<-late
			}
			return memory.Fate{}
		})
		sent := make(chan error, 1)
		go func() { sent <- h.In("x", "y").Publish(context.Background(), []byte("once")) }()
		require.Equal(t, []string{"once"}, receive(t, m, 1))
		require.NoError(t, h.Room("y").Join(within(t), m))
		close(late)
		require.NoError(t, <-sent)
		publish(t, h.Room("y"), 1, 1)
		require.Equal(t, []string{"1"}, receive(t, m, 1))
	})
}

func TestGuarantee5OnceWhenAPublishIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, nil), newHub(t, bus, nil)
		m := connect(t, b, "x")
		publish(t, a.Room("x"), 1, 1)
		var failed atomic.Bool
		bus.Intercept(inRooms(func(context.Context, memory.Frame) memory.Fate {
			if failed.CompareAndSwap(false, true) {
				return memory.Fate{Err: errors.New("connection reset")} // but it arrives
			}
			return memory.Fate{}
		}))
		publish(t, a.Room("x"), 2, 3)
		require.Equal(t, numbers(1, 3), receive(t, m, 3))
		require.EqualValues(t, 1, b.Stats().Repeated)
		nothing(t, b, m)
	})
}

func TestGuarantee5OnceWhenAPublishToAHistoryIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, keeping(100)), newHub(t, bus, keeping(100))
		m := connect(t, b, "x")
		var failures atomic.Int32
		bus.Intercept(inRooms(func(context.Context, memory.Frame) memory.Fate {
			switch failures.Add(1) {
			case 1, 2:
				return memory.Fate{Err: errors.New("connection reset")} // but it arrives
			case 3:
				return memory.Fate{Refuse: true, Err: errors.New("connection reset")}
			}
			return memory.Fate{}
		}))
		publish(t, a.Room("x"), 1, 3)
		require.Equal(t, numbers(1, 3), receive(t, m, 3))
		all, err := a.Room("x").History(within(t), fanout.Position{}, 0)
		require.NoError(t, err)
		require.Equal(t, numbers(1, 3), texts(all), "the history has it once")
	})
}

func TestGuarantee6TheSlowHarmThemselves(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, nil), newHub(t, bus, nil)
	for range 50 {
		connect(t, b, "x", "y") // they never read
	}
	m := connect(t, b, "x")
	for n := range 2000 {
		publish(t, a.Room("x"), n, n)
		require.Equal(t, numbers(n, n), receive(t, m, 1))
	}
}

// A hub catches up as fast as its backend and its processor allow: no time
// passes while it waits for members.
func TestGuarantee6CatchingUpWaitsForNobody(t *testing.T) {
	for _, overflow := range []fanout.Overflow{fanout.Skip, fanout.Latest, fanout.Disconnect} {
		t.Run(fmt.Sprint("overflow ", overflow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				node := bus.NewAdapter()
				o := keeping(100_000)
				o.Window.Messages, o.Overflow = 16, overflow
				a, b := newHub(t, bus, o), newHubOn(t, node, o)
				reads, stuck := connect(t, b, "x"), connect(t, b, "x")
				publish(t, a.Room("x"), 1, 1)
				require.Equal(t, numbers(1, 1), receive(t, reads, 1))
				node.CutSubscriber()
				publish(t, a.Room("x"), 2, 10_000)
				begun := time.Now()
				node.Heal()
				joined := connect(t, b, "x")
				require.Equal(t, numbers(2, 10_000), receive(t, reads, 9999), "it is told of no gap")
				require.Zero(t, time.Since(begun))
				publish(t, a.Room("x"), 10_001, 10_001)
				require.Equal(t, numbers(10_001, 10_001), receive(t, joined, 1))
				require.Equal(t, numbers(10_001, 10_001), receive(t, reads, 1))

				// The room is soon as narrow as it was.
				time.Sleep(5 * time.Second)
				publish(t, a.Room("x"), 10_002, 10_030)
				synctest.Wait()
				switch overflow {
				case fanout.Skip:
					require.Equal(t, numbers(1, 10_030), receive(t, stuck, 10_030))
				case fanout.Latest:
					require.Equal(t, []string{"gap 10029", "10030"}, receive(t, stuck, 2))
				case fanout.Disconnect:
					<-stuck.Done()
				}
			})
		})
	}
}

func TestGuarantee7NothingArrivesAfterLeave(t *testing.T) {
	h := newHub(t, nil, nil)
	m := connect(t, h, "x", "y")
	for n := range 500 {
		publish(t, h.Room("x"), n, n+3)
		if n%2 == 0 { // read a part
			require.Equal(t, numbers(n, n), receive(t, m, 1))
		}
		require.NoError(t, h.Room("x").Leave(t.Context(), m))
		nothing(t, h, m)
		require.Equal(t, []string{"y"}, m.Rooms())
		require.NoError(t, h.Room("x").Join(within(t), m))
		nothing(t, h, m)
	}
	require.NoError(t, m.Close())
	_, err := m.Receive(within(t))
	require.ErrorIs(t, err, fanout.ErrClosed)
}

// All leave while all rejoin, many times, on several hubs: the state that was
// asked for last holds, and no room is deaf.
func TestGuarantee7LeaveAndRejoinStorm(t *testing.T) {
	bus := memory.NewBus()
	const hubs, each = 3, 4
	times := rounds(300, 1000)
	var all []*fanout.Hub
	var members []*fanout.Member
	for range hubs {
		h := newHub(t, bus, &fanout.Options{Linger: -1}) // leaving unsubscribes at once
		all = append(all, h)
		for range each {
			members = append(members, connect(t, h, "x"))
		}
	}
	inParallel(len(members), func(i int) {
		h, m := all[i/each], members[i]
		for range times {
			var wg sync.WaitGroup
			wg.Go(func() { h.Room("x").Leave(context.Background(), m) })
			wg.Go(func() { h.Room("x").Join(within(t), m) })
			wg.Wait()
		}
		if err := h.Room("x").Join(within(t), m); err != nil {
			t.Error(err)
		}
	})
	for i, h := range all {
		require.NoError(t, h.Room("x").Publish(within(t), fmt.Appendf(nil, "from %d", i)))
	}
	for i, m := range members {
		require.ElementsMatch(t, []string{"from 0", "from 1", "from 2"}, receive(t, m, 3), "member %d", i)
	}
	inParallel(len(members), func(i int) {
		for range times {
			var wg sync.WaitGroup
			wg.Go(func() { all[i/each].Room("x").Join(within(t), members[i]) })
			wg.Go(func() { all[i/each].Room("x").Leave(context.Background(), members[i]) })
			wg.Wait()
		}
		all[i/each].Room("x").Leave(context.Background(), members[i])
	})
	for _, m := range members {
		require.Empty(t, m.Rooms())
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		require.Zero(c, bus.Subscribers("fanout:r:{x}"))
	}, 10*time.Second, time.Millisecond)
}

func TestGuarantee8ErrorsAreReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, nil)
		m := connect(t, h, "x")
		bus.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		err := h.Room("x").Publish(ctx, []byte("lost"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, fanout.ErrUnsent)
		require.ErrorContains(t, err, memory.ErrCut.Error(), "it says why")
		require.Equal(t, 3*time.Second, time.Since(start))

		start = time.Now()
		err = h.Room("x").Publish(context.Background(), []byte("lost"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(start), "Options.PublishTimeout")

		bus.Heal()
		publish(t, h.Room("x"), 1, 1)
		require.Equal(t, []string{"gap 0+", "1"}, receive(t, m, 2), "what was surely not sent is not counted")
	})
}

func TestGuarantee8LocalFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a := newHubOn(t, node, &fanout.Options{LocalFallback: true})
		b := newHub(t, bus, nil)
		near, far := connect(t, a, "x"), connect(t, b, "x")
		publish(t, a.Room("x"), 1, 1)
		require.Equal(t, numbers(1, 1), receive(t, far, 1))
		require.Equal(t, numbers(1, 1), receive(t, near, 1))

		// Ambiguous: it arrives at b, and would come back to a later.
		node.CutInbound()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := a.Room("x").Publish(ctx, []byte("2"))
		require.ErrorIs(t, err, fanout.ErrLocalOnly)
		require.NotErrorIs(t, err, fanout.ErrUnsent)
		require.Equal(t, "2", receive(t, near, 1)[0])
		require.Equal(t, "2", receive(t, far, 1)[0])

		node.Cut()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, a.Room("x").Publish(ctx, []byte("3")), fanout.ErrLocalOnly)
		require.Equal(t, "3", receive(t, near, 1)[0])
		node.Heal()
		require.Equal(t, []string{"gap 0+"}, receive(t, near, 1))
		publish(t, a.Room("x"), 4, 4)
		require.Equal(t, []string{"4"}, receive(t, near, 1))
		require.Equal(t, []string{"gap 1", "4"}, receive(t, far, 2))
	})
}

// Messages lost before one that only the fallback delivers are reported.
func TestGuarantee8LocalFallbackCountsWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		h := newHubOn(t, node, &fanout.Options{LocalFallback: true})
		m := connect(t, h, "x")
		publish(t, h.Room("x"), 1, 1)
		node.CutSubscriber()
		publish(t, h.Room("x"), 2, 3)
		node.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, h.Room("x").Publish(ctx, []byte("4")), fanout.ErrLocalOnly)
		require.Equal(t, []string{"1", "gap 2", "4"}, receive(t, m, 3))
		node.Heal()
		require.Equal(t, []string{"gap 0+"}, receive(t, m, 1))
	})
}

// The fallback also delivers messages that wait behind a publish that is tried
// again and again.
func TestGuarantee8LocalFallbackOfWaitingPublishers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, &fanout.Options{LocalFallback: true})
		m := connect(t, h, "x")
		bus.Cut()
		results := make(chan error, 5)
		for n := range 5 {
			patience := 2 * time.Second
			if n == 0 {
				patience = 9 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			go func() { results <- h.Room("x").Publish(ctx, fmt.Append(nil, n)) }()
			synctest.Wait()
		}
		for range 5 {
			require.ErrorIs(t, <-results, fanout.ErrLocalOnly)
		}
		require.ElementsMatch(t, numbers(0, 4), receive(t, m, 5))
	})
}

// A message that could not be sent is delivered here as a first attempt, not as
// a repetition, which others might have had earlier.
func TestGuarantee8LocalFallbackAfterRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h, other := newHub(t, bus, &fanout.Options{LocalFallback: true}), newHub(t, bus, nil)
		m := connect(t, h, "x")
		require.NoError(t, other.Room("x").Publish(within(t), []byte("0")))
		bus.Intercept(func(context.Context, memory.Frame) memory.Fate {
			return memory.Fate{Refuse: true, Err: errors.New("the answer was lost")}
		})
		require.ErrorIs(t, h.Room("x").Publish(t.Context(), []byte("1")), fanout.ErrLocalOnly)
		first, second := publishAsync(t, h.Room("x"), "2"), publishAsync(t, h.Room("x"), "3")
		require.ErrorIs(t, <-first, fanout.ErrLocalOnly)
		require.ErrorIs(t, <-second, fanout.ErrLocalOnly)
		require.Equal(t, []string{"0", "1", "2", "3"}, receive(t, m, 4))
		bus.Intercept(nil)
	})
}

func TestGuarantee9CloseLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	bus := memory.NewBus()
	h, err := fanout.New(bus.NewAdapter(), nil)
	require.NoError(t, err)
	var members []*fanout.Member
	for n := range 20 {
		members = append(members, connect(t, h, "x", fmt.Sprint("room", n)))
	}
	publish(t, h.Room("x"), 1, 10)
	var ended sync.WaitGroup
	for _, m := range members {
		ended.Go(func() {
			for {
				if _, err := m.Receive(context.Background()); err != nil {
					if !errors.Is(err, fanout.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	inParallel(3, func(int) { require.NoError(t, h.Close(within(t))) })
	ended.Wait()
	require.Empty(t, bus.Channels())
	goleak.VerifyNone(t, before)

	require.ErrorIs(t, h.Room("x").Publish(within(t), nil), fanout.ErrClosed)
	require.ErrorIs(t, h.Room("x").Join(within(t), members[0]), fanout.ErrClosed)
	_, err = h.Connect(nil)
	require.ErrorIs(t, err, fanout.ErrClosed)
	require.ErrorIs(t, h.Health(within(t)), fanout.ErrClosed)
	require.NoError(t, h.Close(within(t)))
}
