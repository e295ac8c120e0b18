package memory_test

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/memory"
)

func TestContract(t *testing.T) {
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
		bus := memory.NewBus()
		nodes, adapters := adaptertest.Nodes{}, make([]*memory.Adapter, n)
		for i := range adapters {
			adapters[i] = bus.NewAdapter()
			nodes.Adapters = append(nodes.Adapters, adapters[i])
		}
		// A cut that ends by itself; frames that are published meanwhile are
		// lost.
		broken := func(broken ...*memory.Adapter) error {
			for _, a := range broken {
				a.CutSubscriber()
				time.AfterFunc(20*time.Millisecond, a.Heal)
			}
			return nil
		}
		// The home hands over all that it has. Of the nodes some are told in
		// good order, and some lose their connection before.
		move := func(ctx context.Context) error {
			for i, a := range adapters {
				if i%2 == 1 {
					a.CutSubscriber()
				}
			}
			sleep(ctx, 5*time.Millisecond)
			bus.Failover(0, true)
			for i, a := range adapters {
				if i%2 == 0 {
					a.Move()
				}
				time.AfterFunc(20*time.Millisecond, a.Heal)
			}
			return nil
		}
		nodes.Faults = adaptertest.Faults{
			Break: func(_ context.Context, i int) error { return broken(adapters[i]) },
			Cut:   func(_ context.Context, i int) error { adapters[i].Cut(); return nil },
			Heal:  func(_ context.Context, i int) error { adapters[i].Heal(); return nil },
			Move:  func(ctx context.Context, _ string) error { return move(ctx) },
			Fail: func(context.Context, string) error {
				bus.Failover(2, false)
				return broken(adapters...)
			},
		}
		return nodes
	}, nil)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
