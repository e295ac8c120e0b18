package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

func roomNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("room ", i)
	}
	return names
}

// drain receives until the message "end" has come the given number of times,
// and returns the messages that came before, in no order.
func drain(t testing.TB, m *fanout.Member, ends int) (got []string) {
	t.Helper()
	for ends > 0 {
		if s := receive(t, m, 1)[0]; s == "end" {
			ends--
		} else {
			got = append(got, s)
		}
	}
	return got
}

func endOf(t testing.TB, h *fanout.Hub, rooms ...string) {
	t.Helper()
	for _, room := range rooms {
		require.NoError(t, h.Room(room).Publish(within(t), []byte("end")))
	}
}

func TestMessageToSeveralRoomsOnce(t *testing.T) {
	t.Run("a member that lags within its window, in ten rooms", func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, nil), newHub(t, bus, nil)
		rooms := roomNames(10)
		m := connect(t, b, rooms...)
		for n := 1; n <= 250; n++ {
			require.NoError(t, a.In(rooms...).Publish(t.Context(), fmt.Append(nil, n)))
		}
		endOf(t, a, rooms...)
		require.ElementsMatch(t, numbers(1, 250), drain(t, m, 10))
	})
	t.Run("a room that is further behind than the others", func(t *testing.T) {
		for _, window := range []int{0, 5_000} {
			h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: window, Bytes: 64 << 20}})
			most := max(window, 256) - 1
			rooms := roomNames(10)
			m := connect(t, h, rooms...)
			publish(t, h.Room(rooms[0]), 1, most-56)
			for n := most - 55; n <= most; n++ {
				require.NoError(t, h.In(rooms...).Publish(t.Context(), fmt.Append(nil, n)))
			}
			for n := range 3 * (most - 56) {
				i := 1 + n%8
				require.NoError(t, h.In(rooms[i], rooms[i+1]).Publish(t.Context(), fmt.Append(nil, "pair ", n)))
			}
			endOf(t, h, rooms...)
			got := make(map[string]int)
			for _, s := range drain(t, m, 10) {
				got[s]++
				require.Equal(t, 1, got[s], "%q", s)
			}
			for _, s := range numbers(1, most) {
				require.Equal(t, 1, got[s], "%q", s)
			}
		}
	})
	t.Run("a member that resumes one room and then another", func(t *testing.T) {
		for _, holes := range []int{0, 64} {
			bus := memory.NewBus()
			o := keeping(5000)
			a, b := newHub(t, bus, o), newHub(t, bus, o)
			for n := 1; n <= 2000; n++ {
				require.NoError(t, a.In("x", "y", "z").Publish(t.Context(), fmt.Append(nil, n)))
				for range holes {
					require.NoError(t, a.In("p", "q").Local().Publish(t.Context(), nil))
				}
			}
			m := connect(t, b)
			endOf(t, a, "x", "y", "z")
			require.NoError(t, b.Room("x").Resume(within(t), m, fanout.Position{}))
			require.Equal(t, numbers(1, 2000), drain(t, m, 1))
			require.NoError(t, b.Room("y").Resume(within(t), m, fanout.Position{}))
			require.NoError(t, b.Room("z").Resume(within(t), m, fanout.Position{}))
			require.Empty(t, drain(t, m, 2))
		}
	})
	t.Run("a copy that is sent again and again while others pass", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			a, b := newHub(t, bus, nil), newHub(t, bus, nil)
			m := connect(t, b, "x", "y")
			var down atomic.Bool
			down.Store(true)
			bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
				if down.Load() && strings.Contains(f.Channel, "{y}") {
					return memory.Fate{Refuse: true, Err: errors.New("down")}
				}
				return memory.Fate{}
			})
			sent := make(chan error, 1)
			go func() { sent <- a.In("x", "y").Publish(context.Background(), []byte("once")) }()
			require.Equal(t, []string{"once"}, receive(t, m, 1))
			elsewhere := a.In("p", "q")
			for n := range 1600 {
				require.NoError(t, a.In("x", "z").Publish(t.Context(), fmt.Append(nil, n)))
				require.Equal(t, fmt.Sprint(n), receive(t, m, 1)[0])
				for range 16 {
					require.NoError(t, elsewhere.Local().Publish(t.Context(), nil))
				}
				time.Sleep(5 * time.Millisecond) // of the bubble: eight seconds in all
			}
			down.Store(false)
			require.NoError(t, <-sent)
			endOf(t, a, "y")
			require.Empty(t, drain(t, m, 1))
		})
	})
	t.Run("a room with a history that is behind the others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			o := keeping(100_000)
			o.Window = fanout.Window{Messages: 100_000, Bytes: 64 << 20}
			a, b := newHub(t, bus, o), newHub(t, bus, o)
			m := connect(t, b, "x", "y")
			var behind atomic.Bool
			bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
				if behind.Load() && strings.Contains(f.Channel, "{y}") {
					return memory.Fate{Drop: true}
				}
				return memory.Fate{}
			})
			bus.InterceptReads(func(_ context.Context, channel string, _ adapter.Query) error {
				if behind.Load() && strings.Contains(channel, "{y}") {
					return errors.New("down")
				}
				return nil
			})
			for n := 1; n <= 3200; n++ {
				require.NoError(t, a.In("x", "y").Publish(t.Context(), fmt.Append(nil, n)))
				for range 64 {
					require.NoError(t, a.In("p", "q").Local().Publish(t.Context(), nil))
				}
				behind.Store(n >= 10)
				time.Sleep(100 * time.Millisecond)
			}
			behind.Store(false)
			endOf(t, a, "x", "y")
			require.ElementsMatch(t, numbers(1, 3200), drain(t, m, 2))
		})
	})
	t.Run("by chance", func(t *testing.T) {
		for seed := range uint64(20) {
			onceByChance(t, rand.New(rand.NewPCG(seed, 1)))
		}
	})
}

// onceByChance has members that join, leave and lag, and publishers that choose
// some of the rooms.
func onceByChance(t *testing.T, random *rand.Rand) {
	bus := memory.NewBus()
	hubs := []*fanout.Hub{newHub(t, bus, nil), newHub(t, bus, nil), newHub(t, bus, nil)}
	rooms := roomNames(6)
	members := []*fanout.Member{connect(t, hubs[0], rooms...), connect(t, hubs[1], rooms[:3]...), connect(t, hubs[2])}
	seen := make([]map[string]bool, len(members))
	for i := range seen {
		seen[i] = make(map[string]bool)
	}
	got := func(i int, s string) {
		require.False(t, seen[i][s], "%q twice", s)
		seen[i][s] = true
	}
	for n := range 600 {
		i := random.IntN(len(members))
		room := hubs[i].Room(rooms[random.IntN(len(rooms))])
		switch random.IntN(8) {
		case 0:
			require.NoError(t, room.Join(within(t), members[i]))
		case 1:
			require.NoError(t, room.Leave(t.Context(), members[i]))
		case 2, 3:
			require.NoError(t, hubs[i].To(members[i].ID()).Local().Publish(t.Context(), fmt.Append(nil, "marker ", n)))
			for s := ""; s != fmt.Sprint("marker ", n); {
				s = receive(t, members[i], 1)[0]
				got(i, s)
			}
		default:
			some := append([]string{}, rooms...)
			random.Shuffle(len(some), func(a, b int) { some[a], some[b] = some[b], some[a] })
			require.NoError(t, hubs[i].In(some[:1+random.IntN(len(some))]...).Publish(t.Context(), fmt.Append(nil, n)))
		}
	}
	for i, m := range members {
		for _, room := range rooms {
			require.NoError(t, hubs[i].Room(room).Join(within(t), m))
		}
	}
	endOf(t, hubs[0], rooms...)
	for i, m := range members {
		for _, s := range drain(t, m, len(rooms)) {
			got(i, s)
		}
	}
}

// liveHeap returns the bytes on the heap after a collection.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What a member remembers of messages to several rooms. It does not grow with
// their number: after 100,000 of them it is the same.
func TestMemoryOfMessagesToSeveralRooms(t *testing.T) {
	const members = 5
	for _, test := range []struct {
		name     string
		kept     bool
		messages int
		others   int // messages to other rooms between two
		sleep    time.Duration
		most     int64 // bytes for each member
	}{
		{"all that the hub sends", false, 20_000, 0, 0, 2 << 10},
		{"all that the hub sends, with histories", true, 20_000, 0, 0, 2 << 10},
		{"one in a hundred, 100 a second", false, 1000, 99, 10 * time.Millisecond, 200 << 10},
		{"one in a hundred, one a second", false, 1000, 99, time.Second, 8 << 10},
		{"one in a hundred, one a second, with histories", true, 1000, 99, time.Second, 160 << 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &fanout.Options{}
				if test.kept {
					o = keeping(100)
				}
				h := newHub(t, nil, o)
				rooms := roomNames(10)
				var list []*fanout.Member
				for range members {
					list = append(list, connect(t, h, rooms...))
				}
				buf := make([]fanout.Message, 64)
				ctx := t.Context()
				round := func(messages int) {
					for range messages {
						for range test.others {
							require.NoError(t, h.In("p", "q").Local().Publish(ctx, nil))
						}
						require.NoError(t, h.In(rooms...).Local().Publish(ctx, nil))
						time.Sleep(test.sleep)
					}
					synctest.Wait() // all members are awake
					for _, m := range list {
						for got := 0; got < messages; {
							n, err := m.ReceiveBatch(ctx, buf)
							require.NoError(t, err)
							got += n
						}
					}
				}
				const batch = 50
				rounds := test.messages / batch
				round(batch)
				before := liveHeap()
				for range rounds {
					round(batch)
				}
				each := (liveHeap() - before) / members
				t.Logf("%d bytes a member after %d messages", each, rounds*batch)
				require.Less(t, each, test.most)
				runtime.KeepAlive(list)
			})
		})
	}
}
