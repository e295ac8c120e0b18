package partition_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/stretchr/testify/require"
)

// hubOn returns a hub on an adapter.
func hubOn(t *testing.T, a fanout.Adapter) *fanout.Hub {
	t.Helper()
	h, err := fanout.New(a, &fanout.Options{
		Logger: slog.New(slog.DiscardHandler), PublishTimeout: 2 * time.Second,
		Room: func(string) fanout.RoomOptions {
			return fanout.RoomOptions{Retain: fanout.Retention{Messages: 1000, Age: time.Hour}}
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close(context.Background())) })
	return h
}

// roomOn returns a room that belongs to a partition.
func roomOn(names []string, name string) string {
	for i := 0; ; i++ {
		if room := fmt.Sprint("room", i); partition.Pick(names, room) == name {
			return room
		}
	}
}

func member(t *testing.T, h *fanout.Hub, user string) *fanout.Member {
	t.Helper()
	m, err := h.Connect(&fanout.MemberOptions{User: user})
	require.NoError(t, err)
	return m
}

// next returns what a member receives next. It passes over gaps outside of
// rooms.
func next(t *testing.T, m *fanout.Member) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		msg, err := m.Receive(ctx)
		var gap *fanout.GapError
		switch {
		case errors.As(err, &gap) && gap.Room == "":
			continue
		case err != nil:
			return err.Error()
		}
		return string(msg.Data)
	}
}

var abc = []string{"a", "b", "c"}

// One that is down takes only its rooms with it, also at hubs that start then.
func TestOnePartitionDown(t *testing.T) {
	for _, down := range abc {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(abc...)
			first := hubOn(t, w.add(t, quiet, abc...))
			m := member(t, first, "ann")
			for _, name := range abc {
				require.NoError(t, first.Room(roomOn(abc, name)).Join(t.Context(), m))
			}
			w.buses[down].Cut()
			synctest.Wait()
			require.ErrorContains(t, first.Health(t.Context()), fmt.Sprintf("partition %q", down))

			second := hubOn(t, w.add(t, quiet, abc...))
			n := member(t, second, "bob")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, name := range abc {
				room := roomOn(abc, name)
				if name == down {
					require.Error(t, second.Room(room).Publish(t.Context(), []byte("x")))
					continue
				}
				err := second.Room(room).Join(ctx, n)
				require.NoError(t, err, "with %q down: %v", down, second.Health(t.Context()))
				require.NoError(t, second.Room(room).Publish(ctx, []byte(name)))
				require.Equal(t, name, next(t, m))
				require.Equal(t, name, next(t, n))
			}
			require.NoError(t, second.To(m.ID()).Publish(ctx, []byte("direct")))
			require.Equal(t, "direct", next(t, m))
			require.NoError(t, second.Everyone().Publish(ctx, []byte("everyone")))
			require.Equal(t, "everyone", next(t, m))
			require.Equal(t, "everyone", next(t, n))
			require.NoError(t, first.User("bob").Publish(ctx, []byte("user")))
			require.Equal(t, "user", next(t, n))

			w.buses[down].Heal()
			room := roomOn(abc, down)
			require.NoError(t, second.Room(room).Join(ctx, n))
			require.NoError(t, second.Room(room).Publish(ctx, []byte("again")))
			require.Equal(t, "again", next(t, m))
			require.Equal(t, "again", next(t, n))
			require.NoError(t, first.Health(t.Context()))
		})
	}
}

// A direct message that comes twice is delivered once.
func TestCopiesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(abc...)
		h, other := hubOn(t, w.add(t, quiet, abc...)), hubOn(t, w.add(t, quiet, abc...))
		m := member(t, h, "")
		require.NoError(t, h.Room("x").Join(t.Context(), m))
		for _, bus := range w.buses {
			bus.Intercept(func(context.Context, memory.Frame) memory.Fate {
				return memory.Fate{Delay: time.Duration(len(w.buses)) * time.Millisecond}
			})
		}
		for i := range 100 {
			require.NoError(t, other.To(m.ID()).Publish(t.Context(), fmt.Append(nil, i)))
		}
		require.NoError(t, other.Room("x").Publish(t.Context(), []byte("end")))
		got := make(map[string]int)
		for len(got) < 101 {
			got[next(t, m)]++
		}
		for text, n := range got {
			require.Equal(t, 1, n, text)
		}
		require.Zero(t, h.Stats().Missed+h.Stats().Repeated)
	})
}

func TestChange(t *testing.T) {
	t.Run("waits for a hub that was not told", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld("a", "b")
			told, other := w.add(t, quiet, "a", "b"), w.add(t, quiet, "a", "b")
			h, o := hubOn(t, told), hubOn(t, other)
			require.NoError(t, o.Ready(t.Context()))
			require.NoError(t, h.Ready(t.Context()))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			err := told.Change(ctx, w.parts(0, abc...))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, `which is steady and wants ["a" "b"]`)
			require.ErrorContains(t, h.Health(t.Context()), "a change of partitions is ready and waits for hub")
			require.NoError(t, other.Change(t.Context(), w.parts(1, abc...)))
			require.NoError(t, told.Change(t.Context(), w.parts(0, abc...)))
			require.NoError(t, h.Health(t.Context()))
			require.NotEmpty(t, w.buses["c"].Channels())
		})
	})
	t.Run("can be given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld("a", "b")
			told, other := w.add(t, quiet, "a", "b"), w.add(t, quiet, "a", "b")
			h, o := hubOn(t, told), hubOn(t, other)
			require.NoError(t, o.Ready(t.Context()))
			require.NoError(t, h.Ready(t.Context()))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.Error(t, told.Change(ctx, w.parts(0, abc...)))
			require.NoError(t, told.Change(t.Context(), w.parts(0, "a", "b")))
			require.NoError(t, h.Health(t.Context()))
			time.Sleep(time.Minute)
			require.Empty(t, w.buses["c"].Channels(), "the partition that is not needed is closed")
		})
	})
	t.Run("removes a dead partition", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(abc...)
			hubs := []*fanout.Hub{hubOn(t, w.add(t, quiet, abc...)), hubOn(t, w.add(t, quiet, abc...))}
			room := roomOn(abc, "a")
			m := member(t, hubs[0], "")
			require.NoError(t, hubs[0].Room(room).Join(t.Context(), m))
			require.NoError(t, hubs[1].Room(room).Publish(t.Context(), []byte("1")))
			require.Equal(t, "1", next(t, m))
			w.buses["a"].Cut()
			require.NoError(t, w.change(t.Context(), "b", "c"))
			require.NoError(t, hubs[1].Room(room).Publish(t.Context(), []byte("2")))
			require.Contains(t, next(t, m), "messages may be missing", "the history is gone, and that is said")
			require.Equal(t, "2", next(t, m))
			require.NoError(t, hubs[1].Health(t.Context()))
		})
	})
	t.Run("follows one that the hub was not there for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld("a", "b")
			hubs := []*fanout.Hub{hubOn(t, w.add(t, quiet, "a", "b")), hubOn(t, w.add(t, quiet, "a", "b"))}
			more := append(abc, "d")
			room := roomOn(more, "d")
			m := member(t, hubs[1], "")
			require.NoError(t, hubs[1].Room(room).Join(t.Context(), m))
			require.NoError(t, hubs[0].Room(room).Publish(t.Context(), []byte("1")))
			require.Equal(t, "1", next(t, m))
			w.each(1, (*memory.Adapter).Cut)
			require.NoError(t, w.adapters[0].Change(t.Context(), w.parts(0, more...)))
			require.NoError(t, hubs[0].Room(room).Publish(t.Context(), []byte("2")))
			w.each(1, (*memory.Adapter).Heal)
			time.Sleep(time.Second)
			require.ErrorContains(t, hubs[1].Health(t.Context()), "this hub was not given its adapter")
			require.ErrorIs(t, w.adapters[1].Change(t.Context(), nil), adapter.ErrInvalidOption)
			require.NoError(t, w.adapters[1].Change(t.Context(), w.parts(1, more...)))
			require.Equal(t, "2", next(t, m), "its history has moved with it")
			require.NoError(t, hubs[1].Health(t.Context()))
		})
	})
	t.Run("is what a rolling deploy does", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld("a", "b")
			old := []*fanout.Hub{hubOn(t, w.add(t, quiet, "a", "b")), hubOn(t, w.add(t, quiet, "a", "b"))}
			room := roomOn(abc, "c")
			m := member(t, old[0], "")
			require.NoError(t, old[0].Room(room).Join(t.Context(), m))
			var at fanout.Position
			publish := func(h *fanout.Hub, text string) {
				require.NoError(t, h.Room(room).Publish(t.Context(), []byte(text)))
			}
			publish(old[1], "1")
			msg, err := m.Receive(t.Context())
			require.NoError(t, err)
			at = msg.Position
			fresh := []*fanout.Hub{hubOn(t, w.add(t, quiet, abc...))}
			publish(fresh[0], "2")
			require.Equal(t, "2", next(t, m), "the new process uses the old set")
			require.NoError(t, old[1].Close(t.Context()))
			fresh = append(fresh, hubOn(t, w.add(t, quiet, abc...)))
			publish(fresh[1], "3")
			require.NoError(t, old[0].Close(t.Context()))
			time.Sleep(10 * time.Second)
			publish(fresh[1], "4")
			require.Contains(t, w.buses["c"].Channels(), "fanout:p:{partitions}")
			n := member(t, fresh[0], "")
			require.NoError(t, fresh[0].Room(room).Resume(t.Context(), n, at))
			require.Equal(t, "2", next(t, n))
			require.Equal(t, "3", next(t, n))
			require.Equal(t, "4", next(t, n))
			require.Equal(t, 1, w.buses["c"].Subscribers("fanout:r:{"+room+"}"))
		})
	})
}

// An unkeyed adapter cannot be compared.
type unkeyed struct {
	adapter.Adapter
	_ []int
}

func TestBadPartitionsAreRefused(t *testing.T) {
	bus := memory.NewBus()
	same := bus.NewAdapter()
	for _, parts := range [][]partition.Partition{
		nil,
		{{Name: "a"}},
		{{Adapter: bus.NewAdapter()}},
		{{Name: "a", Adapter: bus.NewAdapter(), Leaving: true}},
		{{Name: "a", Adapter: bus.NewAdapter()}, {Name: "a", Adapter: bus.NewAdapter()}},
		{{Name: "a", Adapter: (*memory.Adapter)(nil)}},
		{{Name: "a", Adapter: same}, {Name: "b", Adapter: same}},
		{{Name: "a", Adapter: unkeyed{}}, {Name: "b"}},
		{{Name: "a\xff", Adapter: bus.NewAdapter()}},
	} {
		_, err := partition.New(parts, nil)
		require.ErrorIs(t, err, adapter.ErrInvalidOption)
	}
	_, err := partition.New([]partition.Partition{{Name: "a", Adapter: bus.NewAdapter()}}, &partition.Options{Copies: -1})
	require.ErrorIs(t, err, adapter.ErrInvalidOption)
	_, err = partition.New([]partition.Partition{{Name: "a", Adapter: bus.NewAdapter()}}, &partition.Options{Prefix: "{"})
	require.ErrorIs(t, err, adapter.ErrInvalidOption)
	require.ErrorContains(t, err, `Prefix "{"`)
	a, err := partition.New([]partition.Partition{{Name: "a", Adapter: unkeyed{Adapter: same}}}, nil)
	require.NoError(t, err)
	defer a.Close(t.Context())
}
