package nats_test

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/fanoutgo/fanout/internal/deploytest"
)

// TestMigration restarts hubs one after the other, that change to NATS or from
// it.
func TestMigration(t *testing.T) {
	for name, away := range map[string]bool{"to NATS": false, "away from NATS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, bus := startFleet(t, 1, nil), memory.NewBus()
			from := func() adapter.Adapter { return bus.NewAdapter() }
			to := func() adapter.Adapter { return newAdapter(t, f.addr(0), nats.Options{}) }
			if away {
				from, to = to, from
			}
			d := &deploytest.Deploy{
				T: t, From: from, To: to, Unordered: true,
				Options: migrate.Options{Settle: 2 * time.Second, Logger: slog.New(slog.DiscardHandler)},
				Pause:   func() time.Duration { return time.Duration(1+rand.N(5)) * time.Millisecond },
			}
			began := time.Now()
			d.Run()
			t.Logf("the deploy took %v", time.Since(began).Round(10*time.Millisecond))
		})
	}
}
