package fanout_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A rawPublisher publishes frames that no hub would.
type rawPublisher struct {
	t       testing.TB
	adapter *memory.Adapter
	seq     uint64
}

type deaf struct{}

func (deaf) Receive(string, []byte) {}
func (deaf) Interrupted(string)     {}
func (deaf) Restored(string)        {}

func newRawPublisher(t testing.TB, bus *memory.Bus) *rawPublisher {
	f := &rawPublisher{t: t, adapter: bus.NewAdapter(), seq: 1}
	require.NoError(t, f.adapter.Attach(deaf{}))
	t.Cleanup(func() { f.adapter.Close(context.Background()) })
	return f
}

// frame returns a frame with a message n times.
func (f *rawPublisher) frame(n int, m wire.Message) []byte {
	b := wire.AppendHeader(nil, &wire.Header{Hub: 7, Stream: 1, Seq: f.seq, Count: n, Time: uint64(time.Now().UnixMilli())})
	f.seq += uint64(n)
	one := wire.AppendMessage(nil, &m)
	for range n {
		b = append(b, one...)
	}
	return b
}

func (f *rawPublisher) publish(room string, frame []byte) {
	_, err := f.adapter.Publish(context.Background(), wire.Names{Prefix: wire.DefaultPrefix}.Room(room), frame)
	require.NoError(f.t, err)
}

func (f *rawPublisher) append(room string, messages int, frame []byte) {
	_, _, err := f.adapter.Append(context.Background(), wire.Names{Prefix: wire.DefaultPrefix}.Room(room), adapter.Record{
		Frame: frame, Messages: messages, Time: time.Now(), Keep: fanout.Retention{Messages: 1_000_000, Age: time.Hour},
	})
	require.NoError(f.t, err)
}

func sameNames(n int, name string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = name
	}
	return list
}

// settled waits until what was published to a room has arrived.
func settled(t testing.TB, h *fanout.Hub, m *fanout.Member, room string) {
	t.Helper()
	endOf(t, h, room)
	drain(t, m, 1)
}

func TestForgedFrame(t *testing.T) {
	t.Run("that leaves out one room very often is refused", func(t *testing.T) {
		bus := memory.NewBus()
		h, f := newHub(t, bus, nil), newRawPublisher(t, bus)
		for range 5000 {
			connect(t, h, "crowd")
		}
		m, other := connect(t, h, "x"), connect(t, h, "y")
		began := time.Now()
		f.publish("x", f.frame(1, wire.Message{ExceptRooms: sameNames(262_144, "crowd")}))
		settled(t, h, other, "y")
		require.Less(t, time.Since(began), 4*time.Second)
		require.NoError(t, h.Room("x").Publish(within(t), []byte("goes on")))
		require.Equal(t, []string{"gap 0+", "goes on"}, receive(t, m, 2))
		require.EqualValues(t, 1, h.Stats().Malformed)
	})
	t.Run("with as many lists as are allowed does not hold up the reader", func(t *testing.T) {
		bus := memory.NewBus()
		h, f := newHub(t, bus, nil), newRawPublisher(t, bus)
		for range 20_000 {
			connect(t, h, "crowd")
		}
		for room, m := range map[string]wire.Message{
			"rooms":   {ExceptRooms: sameNames(1024, "crowd"), Data: []byte("x")},
			"members": {Except: sameNames(1024, h.ID()+"-1"), Data: []byte("x")},
			"both":    {Except: sameNames(512, h.ID()+"-1"), ExceptRooms: sameNames(512, "crowd"), Data: []byte("x")},
		} {
			frame := f.frame(32, m)
			reader, other := connect(t, h, room), connect(t, h, "y")
			began := time.Now()
			f.publish(room, frame)
			settled(t, h, other, "y")
			t.Logf("%s: %v", room, time.Since(began))
			require.Less(t, time.Since(began), 2*time.Second, room)
			require.Equal(t, sameNames(32, "x"), receive(t, reader, 32))
		}
	})
	t.Run("is read as a whole or not at all", func(t *testing.T) {
		bus := memory.NewBus()
		o := keeping(1000)
		h, f := newHub(t, bus, o), newRawPublisher(t, bus)
		m := connect(t, h, "kept", "plain")
		for _, broken := range [][]byte{
			append(f.frame(500, wire.Message{Data: []byte("bad")}), 0),
			f.frame(3, wire.Message{Data: []byte("bad")})[:40],
		} {
			f.publish("plain", broken)
			f.publish("kept", broken)
			f.append("kept", 1, broken)
		}
		endOf(t, h, "plain", "kept")
		for _, s := range drain(t, m, 2) {
			require.True(t, strings.HasPrefix(s, "gap") && strings.HasSuffix(s, "+"), "%q", s)
		}
	})
	t.Run("that broke where it had been whole before", func(t *testing.T) {
		bus := memory.NewBus()
		h, f := newHub(t, bus, keeping(1000)), newRawPublisher(t, bus)
		m := connect(t, h, "kept")
		good := f.frame(3, wire.Message{Data: []byte("good")})
		f.append("kept", 3, good)
		f.append("kept", 3, good[:len(good)-1])
		endOf(t, h, "kept")
		got := drain(t, m, 1)
		require.Equal(t, []string{"good", "good", "good"}, got[:3])
		require.Len(t, got, 4)
		require.Regexp(t, `^gap \d\+$`, got[3])
	})
}

func TestFrameOfManyMessages(t *testing.T) {
	t.Run("is one arrival", func(t *testing.T) {
		bus := memory.NewBus()
		h, f := newHub(t, bus, &fanout.Options{Window: fanout.Window{Messages: 2000}}), newRawPublisher(t, bus)
		m, late := connect(t, h, "x"), connect(t, h, "x")
		f.publish("x", f.frame(1000, wire.Message{Volatile: true, Data: []byte("pointer")}))
		f.publish("x", f.frame(1, wire.Message{Volatile: true, Data: []byte("lags")}))
		f.publish("x", f.frame(1, wire.Message{Data: []byte("end")}))
		require.Eventually(t, func() bool { return h.Stats().Received >= 1002 }, time.Minute, time.Millisecond) // so that both lag
		require.Len(t, drain(t, late, 1), 1000)
		require.Len(t, drain(t, m, 1), 1000)
	})
	for _, room := range []string{"plain", "kept"} {
		t.Run("larger than the window, "+room, func(t *testing.T) {
			bus := memory.NewBus()
			h, f := newHub(t, bus, keeping(10_000)), newRawPublisher(t, bus)
			m := connect(t, h, room)
			for range 2 {
				frame := f.frame(1000, wire.Message{Data: []byte("x")})
				if room == "plain" {
					f.publish(room, frame)
				} else {
					f.append(room, 1000, frame)
				}
			}
			endOf(t, h, room)
			got := drain(t, m, 1)
			if room == "kept" {
				require.Equal(t, sameNames(2000, "x"), got, "the rest comes from the history")
				return
			}
			sum := 0
			for _, s := range got {
				missed := 1
				if s != "x" {
					_, err := fmt.Sscanf(s, "gap %d", &missed)
					require.NoError(t, err)
					require.NotContains(t, s, "+")
				}
				sum += missed
			}
			require.Equal(t, 2000, sum)
		})
	}
	t.Run("resumed", func(t *testing.T) {
		bus := memory.NewBus()
		h, f := newHub(t, bus, keeping(10_000)), newRawPublisher(t, bus)
		connect(t, h, "kept")
		for range 3 {
			f.append("kept", 1000, f.frame(1000, wire.Message{Data: []byte("x")}))
			endOf(t, h, "kept")
		}
		m := connect(t, h)
		require.NoError(t, h.Room("kept").Resume(within(t), m, fanout.Position{}))
		require.Equal(t, sameNames(3000, "x"), drain(t, m, 3))
	})
}

// allocated returns the bytes that f allocates, in all goroutines.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// The bounds that WIRE.md states for the memory of a frame, with a member that
// does not read.
func TestMemoryOfAFrame(t *testing.T) {
	const window = 256
	for name, m := range map[string]wire.Message{
		"tiny messages": {},
		"with lists":    {Except: []string{"a"}, ExceptRooms: []string{"b", "c"}, Data: []byte("d")},
		"with long lists": {
			Except: sameNames(200, "0123456789abcdef-1"), ExceptRooms: roomNames(200), Data: []byte("d"),
		},
		"multi": {ID: 1, Data: []byte("d")},
	} {
		for _, way := range []string{"plain", "kept", "behind"} {
			t.Run(name+", "+way, func(t *testing.T) {
				bus := memory.NewBus()
				o := keeping(1_000_000)
				h, f := newHub(t, bus, o), newRawPublisher(t, bus)
				room := "kept"
				if way == "plain" {
					room = "plain"
				}
				late, y := connect(t, h, room), connect(t, h, "plain y")
				settled(t, h, y, "plain y")
				n := min(wire.MaxCount, (200<<10)/m.Size())
				if entries := len(m.Except) + len(m.ExceptRooms); entries > 0 {
					n = min(n, wire.MaxLists/entries)
				}
				const frames = 20
				var list [][]byte
				size := 0
				for range frames {
					list = append(list, f.frame(n, m))
					size += len(list[0])
				}
				if way == "behind" {
					bus.InterceptReads(func(context.Context, string, adapter.Query) error { return fmt.Errorf("down") })
					bus.DropNext(1)
					f.append(room, 1, f.frame(1, wire.Message{}))
				}
				before := liveHeap()
				took := allocated(func() {
					for _, frame := range list {
						if way == "plain" {
							f.publish(room, frame)
						} else {
							f.append(room, n, frame)
						}
					}
					settled(t, h, y, "plain y")
				})
				held := liveHeap() - before
				t.Logf("%d messages in %d bytes: %.1f times allocated, %d bytes held", n*frames, size, float64(took)/float64(size), held)
				entries := int64(min(n, window)) * 400
				require.Less(t, took, int64(6*size)+frames*entries)
				most := int64(window)*400 + 3<<20 // entries, their data and lists, twice for a history's tail
				if way != "plain" {
					most += int64(2 * size) // the backend is in this process
				}
				require.Less(t, held, most)
				runtime.KeepAlive(late)
			})
		}
	}
}

// A window keeps no more memory alive than it counts, whatever the frames of
// its messages.
func TestWindowPinsNoFrames(t *testing.T) {
	for name, messages := range map[string]wire.Message{
		"beside long lists":  {Except: sameNames(1000, strings.Repeat("x", 200)), Data: []byte("x")},
		"beside other rooms": {ExceptRooms: sameNames(1000, strings.Repeat("x", 200)), Data: []byte("x")},
	} {
		for _, room := range []string{"plain", "kept"} {
			t.Run(name+", "+room, func(t *testing.T) {
				bus := memory.NewBus()
				h, f := newHub(t, bus, keeping(1)), newRawPublisher(t, bus)
				late, y := connect(t, h, room), connect(t, h, "plain y")
				before := liveHeap()
				for range 256 {
					frame := f.frame(1, messages)
					if room == "plain" {
						f.publish(room, frame)
					} else {
						f.append(room, 1, frame)
					}
				}
				settled(t, h, y, "plain y")
				bus.Flush()
				held := liveHeap() - before
				t.Logf("%d bytes", held)
				require.Less(t, held, int64(1<<20))
				runtime.KeepAlive(late)
			})
		}
	}
	t.Run("direct messages", func(t *testing.T) {
		bus := memory.NewBus()
		h, f := newHub(t, bus, nil), newRawPublisher(t, bus)
		late, y := connect(t, h), connect(t, h, "y")
		inbox := wire.Names{Prefix: wire.DefaultPrefix}.Inbox(h.ID())
		before := liveHeap()
		send := func(to []string) {
			m := wire.Message{To: to, Except: sameNames(1000, strings.Repeat("x", 200)), Data: []byte("x")}
			_, err := f.adapter.Publish(t.Context(), inbox, f.frame(1, m))
			require.NoError(t, err)
		}
		for range 255 {
			send([]string{late.ID()})
		}
		settled(t, h, y, "y")
		held := liveHeap() - before
		t.Logf("%d bytes", held)
		require.Less(t, held, int64(1<<20))
		send(sameNames(1000, late.ID()))
		require.Equal(t, sameNames(256, "x"), receive(t, late, 256))
		settled(t, h, y, "y")
		nothing(t, h, late) // it was named very often, and gets the message once
	})
}
