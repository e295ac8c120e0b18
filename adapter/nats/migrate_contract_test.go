package nats_test

import (
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/fanoutgo/fanout/internal/contracttest"
	"github.com/stretchr/testify/require"
)

// TestContractOfMigrations is the contract of hubs that change to NATS or from
// it, before and after the flip, with every fault of the backend that they
// publish to. Where that is the memory, only histories may depend on NATS.
func TestContractOfMigrations(t *testing.T) {
	long(t)
	for name, phase := range map[string]struct{ away, flipped bool }{
		"to NATS, before the flip":        {away: false, flipped: false},
		"to NATS, after the flip":         {away: false, flipped: true},
		"away from NATS, before the flip": {away: true, flipped: false},
		"away from NATS, after the flip":  {away: true, flipped: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, o := startFleet(t, 1, nil), &adaptertest.Options{Parallel: true, Only: ofHistories}
			if phase.away != phase.flipped {
				o = noOneOrder // of NATS, which they publish to
			}
			adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
				return migrating(t, f, n, phase.away, phase.flipped)
			}, o)
		})
	}
}

// ofHistories chooses the cases of histories.
func ofHistories(c adaptertest.Case) bool {
	return c.MovesHome() || strings.HasPrefix(c.Name, "history-")
}

// migrating returns adapters of a migration between NATS and a bus in memory.
func migrating(t testing.TB, f *fleet, n int, away, flipped bool) (ns adaptertest.Nodes) {
	onNATS, bus, name := nodes(t, f, n), memory.NewBus(), rand.Text()
	if flipped {
		from, to := contracttest.Historian(bus.NewAdapter()), contracttest.Historian(newAdapter(t, f.addr(0), nats.Options{}))
		if away {
			from, to = to, from
		}
		contracttest.LogFlip(t, from, name)
		contracttest.NoteFlip(t, to, name)
	}
	o := &migrate.Options{Hold: true, Logger: slog.New(slog.DiscardHandler)}
	var inMemory []*memory.Adapter
	for i := range n {
		inMemory = append(inMemory, bus.NewAdapter())
		from, to := contracttest.Historian(inMemory[i]), onNATS.Adapters[i].(contracttest.Historian)
		if away {
			from, to = to, from
		}
		a, err := migrate.New(name, from, to, o)
		require.NoError(t, err)
		ns.Adapters = append(ns.Adapters, a)
	}
	ns.Faults = contracttest.MemoryFaults(bus, inMemory)
	if away != flipped {
		ns.Faults = onNATS.Faults
	}
	return ns
}
