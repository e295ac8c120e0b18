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
		// A cut that ends by itself; the frames of the meantime are lost.
		broken := func(broken ...*memory.Adapter) error {
			for _, a := range broken {
				a.CutSubscriber()
				time.AfterFunc(20*time.Millisecond, a.Heal)
			}
			return nil
		}
		nodes.Faults = adaptertest.Faults{
			Break: func(_ context.Context, i int) error { return broken(adapters[i]) },
			Cut:   func(_ context.Context, i int) error { adapters[i].Cut(); return nil },
			Heal:  func(_ context.Context, i int) error { adapters[i].Heal(); return nil },
			Move:  func(context.Context, string) error { return broken(adapters...) },
			Fail:  func(context.Context, string) error { return broken(adapters...) },
		}
		return nodes
	}, nil)
}
