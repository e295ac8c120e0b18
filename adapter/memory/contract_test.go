package memory_test

import (
	"testing"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/contracttest"
)

func TestContract(t *testing.T) {
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
		bus := memory.NewBus()
		nodes, adapters := adaptertest.Nodes{}, make([]*memory.Adapter, n)
		for i := range adapters {
			adapters[i] = bus.NewAdapter()
			nodes.Adapters = append(nodes.Adapters, adapters[i])
		}
		nodes.Faults = contracttest.MemoryFaults(bus, adapters)
		return nodes
	}, nil)
}
