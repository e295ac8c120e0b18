package partition_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// quiet are options for tests.
var quiet = &partition.Options{Patience: 2 * time.Second, Logger: slog.New(slog.DiscardHandler)}

// A world is some buses, each a partition, and hubs' adapters on them.
type world struct {
	buses    map[string]*memory.Bus
	links    []map[string]*memory.Adapter // of each hub, by partition
	adapters []*partition.Adapter
	prepare  func(*memory.Bus) // is called for each new bus
	mute     bool              // the backend does not count receivers
}

func newWorld(names ...string) *world {
	w := &world{buses: make(map[string]*memory.Bus)}
	for _, name := range names {
		w.buses[name] = memory.NewBus()
	}
	return w
}

// uncounted is an adapter whose backend does not count receivers.
type uncounted struct{ *memory.Adapter }

func (u uncounted) Publish(ctx context.Context, channel string, frame []byte) (int, error) {
	_, err := u.Adapter.Publish(ctx, channel, frame)
	return -1, err
}

func (u uncounted) PublishAsync(string, []byte, adapter.Completion) bool { return false }

// add makes an adapter on some of the buses.
func (w *world) add(t testing.TB, o *partition.Options, names ...string) *partition.Adapter {
	t.Helper()
	w.links = append(w.links, make(map[string]*memory.Adapter))
	a, err := partition.New(w.parts(len(w.links)-1, names...), o)
	require.NoError(t, err)
	w.adapters = append(w.adapters, a)
	return a
}

// parts returns partitions for a hub; those that it has already come without an
// adapter.
func (w *world) parts(hub int, names ...string) []partition.Partition {
	var parts []partition.Partition
	for _, name := range names {
		p := partition.Partition{Name: name}
		if w.links[hub][name] == nil {
			if w.buses[name] == nil {
				w.buses[name] = memory.NewBus()
				if w.prepare != nil {
					w.prepare(w.buses[name])
				}
			}
			w.links[hub][name] = w.buses[name].NewAdapter()
			p.Adapter = w.links[hub][name]
			if w.mute {
				p.Adapter = uncounted{w.links[hub][name]}
			}
		}
		parts = append(parts, p)
	}
	return parts
}

func (w *world) each(hub int, f func(*memory.Adapter)) {
	for _, a := range w.links[hub] {
		f(a)
	}
}

func TestContract(t *testing.T) {
	for _, partitions := range []int{3, 1}[:redistest.Rounds(1, 2)] {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
				return memoryNodes(t, partitions, n)
			}, nil)
		})
	}
}

func memoryNodes(t testing.TB, partitions, n int) adaptertest.Nodes {
	var names []string
	for i := range partitions {
		names = append(names, fmt.Sprint("p", i))
	}
	w, nodes := newWorld(names...), adaptertest.Nodes{}
	for range n {
		nodes.Adapters = append(nodes.Adapters, w.add(t, quiet, names...))
	}
	briefly := func(hub int) {
		w.each(hub, func(a *memory.Adapter) {
			a.CutSubscriber()
			time.AfterFunc(20*time.Millisecond, a.Heal)
		})
	}
	nodes.Faults = adaptertest.Faults{
		Break: func(_ context.Context, i int) error { briefly(i); return nil },
		Cut:   func(_ context.Context, i int) error { w.each(i, (*memory.Adapter).Cut); return nil },
		Heal:  func(_ context.Context, i int) error { w.each(i, (*memory.Adapter).Heal); return nil },
		Fail: func(context.Context, string) error {
			for _, bus := range w.buses {
				bus.Failover(2, false)
			}
			for i := range w.links {
				briefly(i)
			}
			return nil
		},
		Move: func(ctx context.Context, channel string) error { return w.move(ctx, channel) },
	}
	return nodes
}

// move adds partitions until the channel has moved to one of them.
func (w *world) move(ctx context.Context, channel string) error {
	key := channel[len("fanout:r:{") : len(channel)-1]
	var set []string
	for name := range w.buses {
		set = append(set, name)
	}
	was := partition.Pick(set, key)
	for i := range 100_000 {
		name := fmt.Sprint("new", len(w.buses), "-", i)
		if partition.Pick(append(set, name), key) != was {
			return w.change(ctx, append(set, name)...)
		}
	}
	return errors.New("no name takes the channel")
}

// change changes the set on all hubs.
func (w *world) change(ctx context.Context, names ...string) error {
	errs := make(chan error, len(w.adapters))
	for i, a := range w.adapters {
		parts := w.parts(i, names...)
		go func() { errs <- a.Change(ctx, parts) }()
	}
	var all []error
	for range w.adapters {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
