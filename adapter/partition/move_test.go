package partition_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/stretchr/testify/require"
)

// A sink is a receiver that remembers the positions of kept frames.
type sink struct {
	mu  sync.Mutex // guards all below
	got []adapter.Position
}

func (*sink) Receive(string, []byte) {}
func (*sink) Moving(string)          {}
func (*sink) Interrupted(string)     {}
func (*sink) Restored(string)        {}

func (s *sink) ReceiveKept(_ string, f adapter.KeptFrame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, f.At)
}

// A slow adapter takes up to 4 ms for what concerns histories.
type slow struct{ *memory.Adapter }

func (s slow) Append(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
	time.Sleep(rand.N(4 * time.Millisecond))
	return s.Adapter.Append(ctx, channel, r)
}

func (s slow) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	time.Sleep(rand.N(4 * time.Millisecond))
	return s.Adapter.History(ctx, channel, q)
}

// newcomer returns the name of a partition that takes over a room from another.
func newcomer(old, room string) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("n", i); partition.Pick([]string{old, name}, room) == name {
			return name
		}
	}
}

// attached returns an attached adapter, which the end of the test closes.
func attached(t *testing.T, r adapter.Receiver, parts ...partition.Partition) *partition.Adapter {
	t.Helper()
	a, err := partition.New(parts, quiet)
	require.NoError(t, err)
	require.NoError(t, a.Attach(r))
	t.Cleanup(func() { require.NoError(t, a.Close(context.Background())) })
	return a
}

// Hubs that move one history at the same time, while its messages expire, keep
// each message at its offset.
func TestHubsThatCopyAtOnce(t *testing.T) {
	const channel = "fanout:r:{room}"
	keep := adapter.Retention{Messages: 10000, Age: 4 * time.Second}
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before, after := memory.NewBus(), memory.NewBus()
				name := newcomer("p0", "room")
				var hubs []*partition.Adapter
				for range 3 {
					a := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: slow{before.NewAdapter()}})
					require.NoError(t, a.Subscribe(t.Context(), channel))
					hubs = append(hubs, a)
				}
				read := func(a *partition.Adapter) adapter.Page {
					page, err := a.History(t.Context(), channel, adapter.Query{Limit: keep.Messages, Keep: keep, Time: time.Now()})
					require.NoError(t, err)
					return page
				}
				said := uint64(0)
				say := func() {
					said++
					at, _, err := hubs[0].Append(t.Context(), channel, adapter.Record{
						Frame: fmt.Append(nil, said), Messages: 1, Keep: keep, Time: time.Now(),
					})
					require.NoError(t, err)
					require.Equal(t, said, at.Offset)
				}
				for range 1500 {
					say()
					time.Sleep(2 * time.Millisecond)
				}
				var changes sync.WaitGroup
				for _, a := range hubs {
					read(a)
					changes.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						err := a.Change(ctx, []partition.Partition{{Name: "p0"}, {Name: name, Adapter: slow{after.NewAdapter()}}})
						if err != nil {
							t.Errorf("change: %v", err)
						}
					})
				}
				changes.Wait()
				say()
				for _, a := range hubs {
					page := read(a)
					require.Equal(t, said, page.Head.Offset)
					for _, f := range page.Frames {
						require.Equal(t, fmt.Sprint(f.At.Offset), string(f.Frame))
					}
				}
			})
		})
	}
}

// A room that has moved begins anew when its new home loses what it has, and
// no position is used twice.
func TestNewHomeThatLosesAHistory(t *testing.T) {
	const channel = "fanout:r:{room}"
	synctest.Test(t, func(t *testing.T) {
		bus, got := memory.NewBus(), new(sink)
		name := newcomer("p0", "room")
		a := attached(t, got, partition.Partition{Name: "p0", Adapter: memory.NewBus().NewAdapter()})
		require.NoError(t, a.Subscribe(t.Context(), channel))
		keep := adapter.Retention{Messages: 100, Age: time.Hour}
		used := make(map[adapter.Position]bool)
		var last adapter.Position
		say := func() {
			at, _, err := a.Append(t.Context(), channel, adapter.Record{Frame: []byte("x"), Messages: 1, Keep: keep, Time: time.Now()})
			require.NoError(t, err)
			require.False(t, used[at], "%v is used twice", at)
			require.True(t, last.Before(at), "%v comes after %v", at, last)
			used[at], last = true, at
		}
		read := func(since adapter.Position) adapter.Page {
			page, err := a.History(t.Context(), channel, adapter.Query{Since: since, Limit: 100, Keep: keep, Time: time.Now()})
			require.NoError(t, err)
			return page
		}
		for range 5 {
			say()
		}
		require.NoError(t, a.Change(t.Context(), []partition.Partition{{Name: "p0"}, {Name: name, Adapter: bus.NewAdapter()}}))
		say()
		moved := last
		bus.Flush()
		require.Equal(t, adapter.Page{First: 1}, read(adapter.Position{}), "there is no history")
		require.Equal(t, adapter.Page{First: 1}, read(moved))
		for i := range 7 {
			say()
			page := read(moved)
			require.Equal(t, last, page.Head)
			require.Empty(t, page.Before)
			require.Len(t, page.Frames, i+1)
		}
		synctest.Wait()
		require.Len(t, got.got, len(used))
		for _, at := range got.got {
			require.True(t, used[at], "%v is received", at)
		}
	})
}

// A stalled adapter stops for a while before it reads the head of a room that
// it has copied.
type stalled struct {
	*memory.Adapter
	channel string
	copied  bool
}

func (s *stalled) Append(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
	s.copied = s.copied || channel == s.channel
	return s.Adapter.Append(ctx, channel, r)
}

func (s *stalled) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	if s.copied && channel == s.channel {
		s.copied = false
		time.Sleep(15 * time.Second)
	}
	return s.Adapter.History(ctx, channel, q)
}

// A hub that stops while it moves a history, and goes on when another one has
// finished that, does not hide what was published since.
func TestHubThatStopsWhileItCopies(t *testing.T) {
	const channel = "fanout:r:{room}"
	synctest.Test(t, func(t *testing.T) {
		before, after := memory.NewBus(), memory.NewBus()
		name := newcomer("p0", "room")
		hub := func(p adapter.Adapter) *partition.Adapter {
			return attached(t, new(sink), partition.Partition{Name: "p0", Adapter: before.NewAdapter()}, partition.Partition{Name: name, Adapter: p})
		}
		message := func() adapter.Record {
			return adapter.Record{
				Frame: []byte("x"), Messages: 1, Keep: adapter.Retention{Messages: 100, Age: time.Hour}, Time: time.Now(),
			}
		}
		old := before.NewAdapter()
		require.NoError(t, old.Attach(new(sink)))
		defer func() { require.NoError(t, old.Close(context.Background())) }()
		for range 5 {
			_, _, err := old.Append(t.Context(), channel, message())
			require.NoError(t, err)
		}
		read := func(a *partition.Adapter) int {
			page, err := a.History(t.Context(), channel, adapter.Query{Limit: 100, Keep: message().Keep, Time: time.Now()})
			if err != nil {
				t.Errorf("history: %v", err)
			}
			return len(page.Frames)
		}
		slow, quick := hub(&stalled{Adapter: after.NewAdapter(), channel: channel}), hub(after.NewAdapter())
		var reading sync.WaitGroup
		reading.Go(func() { read(slow) })
		synctest.Wait()
		began := time.Now()
		_, _, err := quick.Append(t.Context(), channel, message())
		require.NoError(t, err)
		require.Less(t, time.Since(began), 12*time.Second, "it takes over")
		reading.Wait()
		require.Equal(t, 6, read(quick))
		require.Equal(t, 6, read(slow))
		require.Equal(t, 6, read(hub(after.NewAdapter())))
	})
}

// A room returns to a partition that it has left, and whose server has begun a
// new epoch since, as one does that was started again. The history is that of
// the partition which the room comes from.
func TestReturnToARestartedPartition(t *testing.T) {
	const channel = "fanout:r:{room}"
	keep := adapter.Retention{Messages: 100, Age: time.Hour}
	for _, lost := range []int{0, 2} {
		t.Run(fmt.Sprint(lost, " lost"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				name := newcomer("p0", "room")
				a := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: bus.NewAdapter()})
				said := 0
				say := func() {
					for range 5 {
						said++
						_, _, err := a.Append(t.Context(), channel, adapter.Record{
							Frame: fmt.Append(nil, said), Messages: 1, Keep: keep, Time: time.Now(), Publisher: "me", Stream: 1, Seq: uint64(said),
						})
						require.NoError(t, err)
						time.Sleep(time.Second)
					}
				}
				say()
				require.NoError(t, a.Change(t.Context(), []partition.Partition{{Name: "p0"}, {Name: name, Adapter: memory.NewBus().NewAdapter()}}))
				say()
				bus.Failover(lost, lost == 0)
				time.Sleep(time.Second)
				require.NoError(t, a.Change(t.Context(), []partition.Partition{{Name: "p0"}, {Name: name, Leaving: true}}))
				say()
				page, err := a.History(t.Context(), channel, adapter.Query{Limit: 100, Keep: keep, Time: time.Now()})
				require.NoError(t, err)
				require.Len(t, page.Frames, said)
				for i, f := range page.Frames {
					require.Equal(t, fmt.Sprint(i+1), string(f.Frame))
				}
			})
		})
	}
}

// All hubs stop and start again, and then a room returns to a partition to
// which it had moved before. What is noted there of the earlier move is of no
// account.
func TestReturnAfterAllHubsHaveStopped(t *testing.T) {
	const channel = "fanout:r:{room}"
	keep := adapter.Retention{Messages: 100, Age: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		buses := map[string]*memory.Bus{"p0": memory.NewBus(), name: memory.NewBus()}
		said := 0
		// life starts a hub with some partitions, changes to others, and publishes
		// before and after.
		life := func(from, to []string) {
			var parts []partition.Partition
			for _, n := range from {
				parts = append(parts, partition.Partition{Name: n, Adapter: buses[n].NewAdapter()})
			}
			a := attached(t, new(sink), parts...)
			say := func() {
				said++
				_, _, err := a.Append(t.Context(), channel, adapter.Record{Frame: fmt.Append(nil, said), Messages: 1, Keep: keep, Time: time.Now()})
				require.NoError(t, err)
				time.Sleep(time.Second)
			}
			say()
			parts = nil
			for _, n := range to {
				p := partition.Partition{Name: n}
				if !slices.Contains(from, n) {
					p.Adapter = buses[n].NewAdapter()
				}
				parts = append(parts, p)
			}
			if len(to) < len(from) {
				parts = append(parts, partition.Partition{Name: name, Leaving: true})
			}
			require.NoError(t, a.Change(t.Context(), parts))
			say()
			page, err := a.History(t.Context(), channel, adapter.Query{Limit: 100, Keep: keep, Time: time.Now()})
			require.NoError(t, err)
			require.Len(t, page.Frames, said)
			require.NoError(t, a.Close(t.Context()))
			time.Sleep(time.Minute)
		}
		one, both := []string{"p0"}, []string{"p0", name}
		for range 2 {
			life(one, both)
			life(both, one)
		}
	})
}
