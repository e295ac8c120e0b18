package contracttest

import (
	"context"
	"time"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/memory"
)

// outage is how long adapters in memory are cut off that connect again by
// themselves.
const outage = 20 * time.Millisecond

// Break cuts adapters off, and heals them by itself. Frames that are published
// meanwhile do not reach them.
func Break(adapters ...*memory.Adapter) {
	for _, a := range adapters {
		a.CutSubscriber()
		time.AfterFunc(outage, a.Heal)
	}
}

// MemoryFaults returns all faults of adapters that share a bus. They have the
// order of the nodes.
func MemoryFaults(bus *memory.Bus, adapters []*memory.Adapter) adaptertest.Faults {
	return adaptertest.Faults{
		Break: func(_ context.Context, i int) error { Break(adapters[i]); return nil },
		Cut:   func(_ context.Context, i int) error { adapters[i].Cut(); return nil },
		Heal:  func(_ context.Context, i int) error { adapters[i].Heal(); return nil },
		Move:  func(ctx context.Context, _ string) error { return moveBus(ctx, bus, adapters) },
		Fail: func(context.Context, string) error {
			bus.Failover(2, false)
			Break(adapters...)
			return nil
		},
	}
}

// moveBus has another home take over all that the bus has. Of the adapters some
// are told in good order, and some lose their connection before.
func moveBus(ctx context.Context, bus *memory.Bus, adapters []*memory.Adapter) error {
	for i, a := range adapters {
		if i%2 == 1 {
			a.CutSubscriber()
		}
	}
	select {
	case <-time.After(outage / 4):
	case <-ctx.Done():
	}
	bus.Failover(0, true)
	for i, a := range adapters {
		if i%2 == 0 {
			a.Move()
		}
		time.AfterFunc(outage, a.Heal)
	}
	return nil
}
