package migrate_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/stretchr/testify/require"
)

// The contract holds in each phase, with every fault of the backend that the
// hubs publish to.
func TestContract(t *testing.T) {
	for name, phase := range map[string]struct {
		flipped bool // from the beginning
		during  bool // a second after it
		other   bool // the backend that does not count is down
		waive   []string
	}{
		"before the flip":                          {},
		"before the flip, the new backend is down": {other: true},
		"after the flip":                           {flipped: true},
		"after the flip, the old backend is down": {
			flipped: true, other: true,
			waive: historyCases(), // nobody knows what there is to copy: see TestOldBackendDownAfterFlip
		},
		"during the flip": {
			during: true,
			waive:  []string{"history-trims-by-age"}, // copies are as old as the flip
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
				from, to := memory.NewBus(), memory.NewBus()
				active, idle := from, to
				if phase.flipped {
					writeNote(t, to)
					active, idle = to, from
				}
				if phase.other {
					idle.Cut()
				}
				o := &migrate.Options{Hold: !phase.during, Settle: time.Millisecond}
				nodes := newNodes(t, n, from, to, o)
				if phase.during {
					everyone(t, from, n)
					return adaptertest.Nodes{Adapters: nodes.all(), Faults: adaptertest.Faults{Break: nodes.breakBoth}}
				}
				return adaptertest.Nodes{Adapters: nodes.all(), Faults: nodes.of(active, phase.flipped)}
			}, &adaptertest.Options{Parallel: true, Waive: phase.waive})
		})
	}
}

// historyCases are those that need a history.
func historyCases() (names []string) {
	for _, c := range adaptertest.Cases() {
		if strings.HasPrefix(c.Name, "history-") || strings.HasPrefix(c.Name, "moving-") || c.Name == "outage-append-tells-the-truth" {
			names = append(names, c.Name)
		}
	}
	return names
}

// writeNote has the adapters that are made after it begin flipped.
func writeNote(t testing.TB, to *memory.Bus) { noteFlip(t, to.NewAdapter(), "test") }

// noteFlip does so for a migration of any name. It closes the adapter, which is
// one of the new backend.
func noteFlip(t testing.TB, a historian, name string) {
	defer a.Close(context.Background())
	require.NoError(t, a.Attach(nobody{}))
	_, _, err := a.Append(t.Context(), "fanout:m:{"+name+"}", adapter.Record{
		Frame: []byte("migrate1 flipped"), Messages: 1, Time: time.Now(), Publisher: "migrate", Stream: 1, Seq: 1,
		Keep: adapter.Retention{Messages: 10, Age: time.Hour},
	})
	require.NoError(t, err)
}

type historian interface {
	adapter.Adapter
	adapter.Historian
}

// everyone has n hubs that are subscribed to the channel of everyone.
func everyone(t testing.TB, from *memory.Bus, n int) {
	for range n {
		a := from.NewAdapter()
		t.Cleanup(func() { _ = a.Close(context.Background()) })
		require.NoError(t, a.Attach(nobody{}))
		require.NoError(t, a.Subscribe(t.Context(), "fanout:a:{everyone}"))
	}
}

type nobody struct{}

func (nobody) Receive(string, []byte) {}
func (nobody) Interrupted(string)     {}
func (nobody) Restored(string)        {}

// nodes are adapters under test.
type nodes struct {
	migrating []*migrate.Adapter
	old, new  []*memory.Adapter
}

func newNodes(t testing.TB, n int, from, to *memory.Bus, o *migrate.Options) *nodes {
	var ns nodes
	for range n {
		a, b := from.NewAdapter(), to.NewAdapter()
		m, err := migrate.New("test", a, b, o)
		require.NoError(t, err)
		ns.migrating = append(ns.migrating, m)
		ns.old, ns.new = append(ns.old, a), append(ns.new, b)
	}
	return &ns
}

func (ns *nodes) all() (list []adapter.Adapter) {
	for _, m := range ns.migrating {
		list = append(list, m)
	}
	return list
}

const outage = 20 * time.Millisecond

// breakAll breaks the connections of adapters on which they receive.
func breakAll(list ...*memory.Adapter) error {
	for _, a := range list {
		a.CutSubscriber()
		time.AfterFunc(outage, a.Heal)
	}
	return nil
}

func (ns *nodes) breakBoth(_ context.Context, i int) error { return breakAll(ns.old[i], ns.new[i]) }

// of returns the faults of one of the backends.
func (ns *nodes) of(bus *memory.Bus, flipped bool) adaptertest.Faults {
	list := ns.old
	if flipped {
		list = ns.new
	}
	return adaptertest.Faults{
		Break: func(_ context.Context, i int) error { return breakAll(list[i]) },
		Cut:   func(_ context.Context, i int) error { list[i].Cut(); return nil },
		Heal:  func(_ context.Context, i int) error { list[i].Heal(); return nil },
		Move: func(ctx context.Context, _ string) error {
			for i, a := range list {
				if i%2 == 1 {
					a.CutSubscriber()
				}
			}
			bus.Failover(0, true)
			for i, a := range list {
				if i%2 == 0 {
					a.Move()
				}
				time.AfterFunc(outage, a.Heal)
			}
			return ctx.Err()
		},
		Fail: func(context.Context, string) error {
			bus.Failover(2, false)
			return breakAll(list...)
		},
	}
}
