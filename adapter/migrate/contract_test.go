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
	"github.com/fanoutgo/fanout/internal/contracttest"
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
			waive: []string{
				"history-trims-by-age",      // copies are as old as the flip
				"history-trims-by-number",   // it reads with other retentions, and one of them is that of the copy
				"history-repeats-once",      // it repeats what was acknowledged, which hubs do not: see TestDoubtAtTheFlip
				"history-frames-are-opaque", // a copy may arrive again, at the position that it had: hubs drop it
			},
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
func writeNote(t testing.TB, to *memory.Bus) { contracttest.NoteFlip(t, to.NewAdapter(), "test") }

// everyone has n hubs that are subscribed to the channel of everyone.
func everyone(t testing.TB, from *memory.Bus, n int) {
	for range n {
		a := from.NewAdapter()
		t.Cleanup(func() { _ = a.Close(context.Background()) })
		require.NoError(t, a.Attach(nobody{}))
		require.NoError(t, a.Subscribe(t.Context(), "fanout:a:{everyone}"))
	}
}

type nobody = contracttest.Nobody

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

func (ns *nodes) breakBoth(_ context.Context, i int) error {
	contracttest.Break(ns.old[i], ns.new[i])
	return nil
}

// of returns the faults of one of the backends.
func (ns *nodes) of(bus *memory.Bus, flipped bool) adaptertest.Faults {
	if flipped {
		return contracttest.MemoryFaults(bus, ns.new)
	}
	return contracttest.MemoryFaults(bus, ns.old)
}
