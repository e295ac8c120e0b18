package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/fanoutgo/fanout/internal/wire/frozen"
	"github.com/stretchr/testify/require"
)

// A later release writes as this one does, with fields that this one does not
// know.
type laterHub struct {
	t       *testing.T
	adapter *memory.Adapter
	id      uint64
	next    map[string]uint64 // number, by channel
}

// Fields of a later release.
const (
	skippable = 4000
	must      = 4001
)

func newLaterHub(t *testing.T, bus *memory.Bus, id uint64) *laterHub {
	w := &laterHub{t: t, adapter: bus.NewAdapter(), id: id, next: map[string]uint64{}}
	require.NoError(t, w.adapter.Attach(deaf{}))
	t.Cleanup(func() { w.adapter.Close(context.Background()) })
	return w
}

// fields returns those of what a text says it has: "skip" and "must".
func laterFields(says string) (f wire.Fields) {
	if strings.Contains(says, "skip") {
		f = wire.AppendField(f, wire.Field{Number: skippable, Value: []byte("later")})
	}
	if strings.Contains(says, "must") {
		f = wire.AppendField(f, wire.Field{Number: must, Must: true, Value: []byte("later")})
	}
	return f
}

// frame returns the next frame of a channel, with a header and messages that
// have the fields which they say they have.
func (w *laterHub) frame(channel, header string, to []string, texts ...string) []byte {
	seq := w.next[channel] + 1
	w.next[channel] += uint64(len(texts))
	b := wire.AppendHeader(nil, &wire.Header{
		Hub: w.id, Stream: 1, Seq: seq, Count: len(texts), Time: uint64(time.Now().UnixMilli()), Fields: laterFields(header),
	})
	for _, text := range texts {
		b = wire.AppendMessage(b, &wire.Message{To: to, Fields: laterFields(text), Data: []byte(text)})
	}
	return b
}

func (w *laterHub) publish(channel, header string, texts ...string) {
	w.t.Helper()
	_, err := w.adapter.Publish(context.Background(), channel, w.frame(channel, header, nil, texts...))
	require.NoError(w.t, err)
}

func (w *laterHub) direct(m *fanout.Member, header string, texts ...string) {
	w.t.Helper()
	hub, _, _ := strings.Cut(m.ID(), "-")
	channel := wire.Names{Prefix: wire.DefaultPrefix}.Inbox(hub)
	_, err := w.adapter.Publish(context.Background(), channel, w.frame(channel, header, []string{m.ID()}, texts...))
	require.NoError(w.t, err)
}

func (w *laterHub) keep(channel, header string, texts ...string) {
	w.t.Helper()
	_, _, err := w.adapter.Append(context.Background(), channel, adapter.Record{
		Frame: w.frame(channel, header, nil, texts...), Messages: len(texts), Time: time.Now(),
		Keep: fanout.Retention{Messages: 100, Age: time.Hour}, Publisher: "later", Stream: 1, Seq: w.next[channel] + 1 - uint64(len(texts)),
	})
	require.NoError(w.t, err)
}

// hears returns the next n messages of a member, gaps of all channels included.
func hears(t *testing.T, m *fanout.Member, n int) (got []string) {
	t.Helper()
	for range n {
		msg, err := m.Receive(within(t))
		got = append(got, show(t, msg, err))
	}
	return got
}

const everyoneChannel = "fanout:a:{everyone}"

// Fields that this release does not know, and need not, change nothing.
func TestFieldsOfALaterReleaseAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h, w := newHub(t, bus, keeping(100)), newLaterHub(t, bus, 99)
		m := connect(t, h, "plain", "x")
		w.publish("fanout:r:{plain}", "skip", "1", "2 skip", "3")
		require.Equal(t, []string{"1", "2 skip", "3"}, hears(t, m, 3))
		w.keep(channelX, "skip", "4", "5 skip", "6")
		require.Equal(t, []string{"4", "5 skip", "6"}, hears(t, m, 3))
		w.publish(everyoneChannel, "skip", "7 skip")
		require.Equal(t, []string{"7 skip"}, hears(t, m, 1))
		w.direct(m, "skip", "8 skip")
		require.Equal(t, []string{"8 skip"}, hears(t, m, 1))
		again := connect(t, h)
		require.NoError(t, h.Room("x").Resume(within(t), again, fanout.Position{}))
		require.Equal(t, []string{"4", "5 skip", "6"}, hears(t, again, 3))
		s := h.Stats()
		require.Zero(t, s.Malformed+s.NotUnderstood+s.Missed)
	})
}

// Messages with a field that has to be understood are missing: each is one, in
// its place.
func TestFieldsThatHaveToBeUnderstood(t *testing.T) {
	test := func(name string, f func(t *testing.T, bus *memory.Bus, h *fanout.Hub, w *laterHub)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				f(t, bus, newHub(t, bus, quiet()), newLaterHub(t, bus, 99))
			})
		})
	}
	test("in a room", func(t *testing.T, _ *memory.Bus, h *fanout.Hub, w *laterHub) {
		m := connect(t, h, "plain")
		const room = "fanout:r:{plain}"
		w.publish(room, "", "1", "2 must", "3")
		w.publish(room, "", "4 must", "5 must", "6", "7 skip must")
		w.publish(room, "", "8")
		require.Equal(t, []string{"1", "gap 1", "3", "gap 2", "6", "gap 1", "8"}, hears(t, m, 7))
		w.publish(room, "must", "9", "10")
		w.publish(room, "", "11")
		require.Equal(t, []string{"gap 2", "11"}, hears(t, m, 2))
		s := h.Stats()
		require.EqualValues(t, 6, s.NotUnderstood)
		require.Zero(t, s.Malformed+s.Missed)
	})
	test("in a room with a history", func(t *testing.T, _ *memory.Bus, h *fanout.Hub, w *laterHub) {
		m := connect(t, h, "x")
		w.keep(channelX, "", "1", "2 must", "3")
		w.keep(channelX, "must", "4", "5")
		w.keep(channelX, "", "6")
		require.Equal(t, []string{"1", "gap 1", "3", "gap 2", "6"}, hears(t, m, 5))
		require.EqualValues(t, 3, h.Stats().NotUnderstood)
	})
	for _, here := range []bool{true, false} {
		test(fmt.Sprint("in a Resume, heard by the hub ", here), func(t *testing.T, _ *memory.Bus, h *fanout.Hub, w *laterHub) {
			if here {
				connect(t, h, "x")
			}
			w.keep(channelX, "", "1", "2 must", "3")
			w.keep(channelX, "must", "4", "5")
			w.keep(channelX, "", "6")
			m := connect(t, h)
			require.NoError(t, h.Room("x").Resume(within(t), m, fanout.Position{}))
			require.Equal(t, []string{"1", "gap 1", "3", "gap 2", "6"}, hears(t, m, 5))
			w.keep(channelX, "", "7")
			require.Equal(t, []string{"7"}, hears(t, m, 1))
			all, err := h.Room("x").History(within(t), fanout.Position{}, 0)
			var gap *fanout.GapError
			require.ErrorAs(t, err, &gap)
			require.Equal(t, fanout.GapError{Room: "x", Missed: 3}, *gap)
			require.Len(t, all, 4)
			require.NotZero(t, h.Stats().NotUnderstood)
		})
	}
	test("in what a hub catches up with", func(t *testing.T, bus *memory.Bus, h *fanout.Hub, w *laterHub) {
		node := bus.NewAdapter()
		late := newHubOn(t, node, quiet())
		m := connect(t, late, "x")
		w.keep(channelX, "", "1")
		require.Equal(t, []string{"1"}, hears(t, m, 1))
		node.CutSubscriber()
		w.keep(channelX, "", "2 must", "3")
		w.keep(channelX, "", "4", "5 must")
		w.keep(channelX, "must", "6")
		bus.Heal()
		w.keep(channelX, "", "7")
		require.Equal(t, account{got: []string{"3", "4", "7"}, missed: 3}, accountOf(t, m))
	})
	test("in what a member refills from", func(t *testing.T, bus *memory.Bus, _ *fanout.Hub, w *laterHub) {
		o := quiet()
		o.Window = fanout.Window{Messages: 8}
		h := newHubOn(t, bus.NewAdapter(), o)
		m := connect(t, h, "x")
		for n := range 40 {
			text := fmt.Sprint(n)
			if n == 5 {
				text = "must"
			}
			w.keep(channelX, "", text)
		}
		synctest.Wait()
		got := accountOf(t, m)
		require.Equal(t, account{got: append(numbers(0, 4), numbers(6, 39)...), missed: 1}, got)
	})
	test("beyond the window", func(t *testing.T, bus *memory.Bus, _ *fanout.Hub, w *laterHub) {
		h := newHubOn(t, bus.NewAdapter(), &fanout.Options{Window: fanout.Window{Messages: 8}, Logger: slog.New(slog.DiscardHandler)})
		m := connect(t, h, "plain")
		texts := numbers(1, 100)
		texts[5], texts[95] = "must", "must"
		w.publish("fanout:r:{plain}", "", texts...)
		got := accountOf(t, m)
		require.Equal(t, 100, len(got.got)+got.missed)
		require.NotContains(t, got.got, "must")
		require.EqualValues(t, 2, h.Stats().NotUnderstood)
	})
	test("to everyone", func(t *testing.T, _ *memory.Bus, h *fanout.Hub, w *laterHub) {
		m := connect(t, h, "plain")
		w.publish(everyoneChannel, "", "1", "2 must", "3")
		w.publish(everyoneChannel, "must", "4", "5")
		w.publish(everyoneChannel, "", "6")
		require.Equal(t, []string{"1", "gap 1", "3", "gap 2", "6"}, hears(t, m, 5))
	})
	test("directly", func(t *testing.T, _ *memory.Bus, h *fanout.Hub, w *laterHub) {
		m, other := connect(t, h, "plain"), connect(t, h, "plain")
		w.direct(m, "", "1", "2 must", "3")
		require.Equal(t, []string{"1", "gap 1", "3"}, hears(t, m, 3))
		nothing(t, h, other)
		w.direct(m, "must", "4") // for whom nobody can tell
		w.direct(m, "", "5")
		got := append(hears(t, m, 2), hears(t, other, 1)...)
		require.ElementsMatch(t, []string{"gap 0+", "5", "gap 0+"}, got)
		require.EqualValues(t, 2, h.Stats().NotUnderstood)
	})
	t.Run("is said in the log with its number, once a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := new(logger)
			bus := memory.NewBus()
			h, w := newHub(t, bus, &fanout.Options{Logger: slog.New(l)}), newLaterHub(t, bus, 99)
			m := connect(t, h, "plain")
			for n := range 3 {
				w.publish("fanout:r:{plain}", "", "must", "must")
				synctest.Wait()
				require.Equal(t, min(n+1, 2), strings.Count(l.String(), "field=4001"))
				if n == 0 {
					time.Sleep(time.Minute)
				}
			}
			require.Equal(t, []string{"gap 6"}, hears(t, m, 1))
		})
	})
	test("of a frame that comes twice is missing once", func(t *testing.T, _ *memory.Bus, h *fanout.Hub, w *laterHub) {
		m := connect(t, h, "plain")
		frame := w.frame("fanout:r:{plain}", "", nil, "1", "2 must")
		for _, f := range [][]byte{frame, wire.Again(frame, true, 0)} {
			_, err := w.adapter.Publish(t.Context(), "fanout:r:{plain}", f)
			require.NoError(t, err)
		}
		w.publish("fanout:r:{plain}", "", "3")
		require.Equal(t, []string{"1", "gap 1", "3"}, hears(t, m, 3))
		require.EqualValues(t, 1, h.Stats().NotUnderstood)
		require.EqualValues(t, 2, h.Stats().Repeated)
	})
}

// An oldHub reads and writes with the oldest format that is supported.
type oldHub struct {
	t       *testing.T
	adapter *memory.Adapter
	id      uint64
	next    map[string]uint64

	mu     sync.Mutex
	heard  map[string][]string // by channel
	hellos []frozen.Hello
	failed []error
}

func newOldHub(t *testing.T, bus *memory.Bus, id uint64) *oldHub {
	o := &oldHub{t: t, adapter: bus.NewAdapter(), id: id, next: map[string]uint64{}, heard: map[string][]string{}}
	require.NoError(t, o.adapter.Attach(o))
	for _, channel := range []string{everyoneChannel, o.inbox(), "fanout:r:{plain}"} {
		require.NoError(t, o.adapter.Subscribe(within(t), channel))
	}
	t.Cleanup(o.close)
	return o
}

func (o *oldHub) close() { o.adapter.Close(context.Background()) }
func (o *oldHub) inbox() string {
	return wire.Names{Prefix: wire.DefaultPrefix}.Inbox(fmt.Sprintf("%016x", o.id))
}
func (*oldHub) Interrupted(string) {}
func (*oldHub) Restored(string)    {}

func (o *oldHub) Receive(channel string, frame []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, d, err := frozen.Decode(frame)
	switch {
	case errors.Is(err, frozen.ErrNotice):
		h, err := frozen.DecodeHello(frame)
		if err == nil {
			o.hellos = append(o.hellos, h)
		} else if !errors.Is(err, frozen.ErrNotice) {
			o.failed = append(o.failed, err)
		}
		return
	case err != nil:
		o.failed = append(o.failed, err)
	}
	for v := new(frozen.View); d.Next(v); {
		text := string(v.Data)
		if v.Unknown != 0 {
			text = fmt.Sprint("unknown ", v.Unknown)
		}
		o.heard[channel] = append(o.heard[channel], text)
	}
}

// got returns what was heard in a channel, and that all could be read.
func (o *oldHub) got(channel string) []string {
	o.t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	require.Empty(o.t, o.failed)
	return append([]string(nil), o.heard[channel]...)
}

// said returns the hellos that were heard.
func (o *oldHub) said() []frozen.Hello {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]frozen.Hello(nil), o.hellos...)
}

func (o *oldHub) publish(channel string, m *frozen.Message) {
	o.next[channel]++
	frame := frozen.AppendHeader(nil, &frozen.Header{
		Hub: o.id, Stream: 1, Seq: o.next[channel], Count: 1, Time: uint64(time.Now().UnixMilli()),
	})
	_, err := o.adapter.Publish(context.Background(), channel, frozen.AppendMessage(frame, m))
	require.NoError(o.t, err)
}

func (o *oldHub) hello() {
	frame := frozen.AppendHello(nil, &frozen.Hello{Hub: o.id, Level: frozen.Level, Release: "old", Answer: true})
	_, err := o.adapter.Publish(context.Background(), everyoneChannel, frame)
	require.NoError(o.t, err)
}

// Hubs of the oldest release that is supported, of this one and of a later one
// understand each other.
func TestTwoReleasesInOneCluster(t *testing.T) {
	t.Run("speak with each other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			h, old, later := newHub(t, bus, nil), newOldHub(t, bus, 5), newLaterHub(t, bus, 99)
			m := connect(t, h, "plain")
			const room = "fanout:r:{plain}"

			old.publish(room, &frozen.Message{Data: []byte("1")})
			old.publish(room, &frozen.Message{ID: 9, Except: []string{"x"}, ExceptRooms: []string{"y"}, Data: []byte("2")})
			old.publish(everyoneChannel, &frozen.Message{Data: []byte("3")})
			hub := wire.Names{Prefix: wire.DefaultPrefix}.Inbox(h.ID())
			old.publish(hub, &frozen.Message{To: []string{m.ID()}, Data: []byte("4")})
			require.ElementsMatch(t, numbers(1, 4), hears(t, m, 4))

			publish(t, h.Room("plain"), 5, 6)
			require.NoError(t, h.In("plain", "x").Except(m.ID()).ExceptRooms("z").Volatile().Publish(within(t), []byte("7")))
			require.NoError(t, h.Everyone().Publish(within(t), []byte("8")))
			require.NoError(t, h.To(fmt.Sprintf("%016x-1", old.id)).Publish(within(t), []byte("9")))
			require.Equal(t, []string{"1", "2", "5", "6", "7"}, old.got(room))
			require.Equal(t, []string{"3", "8"}, old.got(everyoneChannel))
			require.Equal(t, []string{"9"}, old.got(old.inbox()))

			later.publish(room, "skip", "10 skip", "11 must", "12")
			require.Equal(t, []string{"10 skip", "unknown 4001", "12"}, old.got(room)[5:])
			require.ElementsMatch(t, []string{"5", "6", "8", "10 skip", "gap 1", "12"}, hears(t, m, 6))
			require.Zero(t, h.Stats().Malformed)
			require.Zero(t, h.Stats().Missed)
		})
	})
	t.Run("hear each other's hellos", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			h, old := newHub(t, bus, nil), newOldHub(t, bus, 5)
			m := connect(t, h, "plain")
			time.Sleep(2 * time.Second)
			require.Len(t, old.said(), 1, "it has asked")
			require.True(t, old.said()[0].Answer)
			require.NotEmpty(t, old.said()[0].Release)
			require.Equal(t, h.ID(), fmt.Sprintf("%016x", old.said()[0].Hub))
			old.hello()
			time.Sleep(time.Second)
			require.Len(t, old.said(), 3, "its own, and the answer")
			require.Equal(t, 2, h.Stats().Hubs)
			// A notice of another kind, of a later release, is ignored.
			notice := wire.AppendHello(nil, &wire.Hello{Hub: 99, Level: 7})
			notice[4] = 0x90
			for _, channel := range []string{everyoneChannel, "fanout:r:{plain}", wire.Names{Prefix: "fanout"}.Inbox(h.ID())} {
				_, err := old.adapter.Publish(t.Context(), channel, notice)
				require.NoError(t, err)
			}
			old.got("")
			require.Zero(t, h.Stats().Malformed)
			nothing(t, h, m)
			time.Sleep(10 * time.Minute)
			require.Equal(t, 1, h.Stats().Hubs, "it is no longer heard")
			require.LessOrEqual(t, len(old.said()), 3+30)
		})
	})
	t.Run("lose nothing in a rolling restart", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			const room = "fanout:r:{plain}"
			olds := []*oldHub{newOldHub(t, bus, 5), newOldHub(t, bus, 6), newOldHub(t, bus, 7)}
			var members []*fanout.Member
			var hubs []*fanout.Hub
			n, from := 0, []int{} // the first number that each member has to hear
			say := func() {
				for _, old := range olds {
					n++
					old.publish(room, &frozen.Message{Data: []byte(strconv.Itoa(n))})
				}
				for _, h := range hubs {
					n++
					require.NoError(t, h.Room("plain").Publish(within(t), []byte(strconv.Itoa(n))))
				}
			}
			say()
			for len(olds) > 0 {
				last := olds[0]
				last.close()
				olds = olds[1:]
				say()
				h := newHub(t, bus, nil)
				m := connect(t, h, "plain")
				hubs, members, from = append(hubs, h), append(members, m), append(from, n+1)
				say()
				for _, old := range olds {
					require.Equal(t, numbers(1, n), old.got(room))
				}
				say()
				time.Sleep(5 * time.Second)
			}
			for i, m := range members {
				require.Equal(t, numbers(from[i], n), hears(t, m, n-from[i]+1))
				s := hubs[i].Stats()
				require.Zero(t, s.Malformed+s.Missed+s.NotUnderstood)
			}
		})
	})
}
