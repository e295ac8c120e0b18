package fanout_test

import (
	"context"
	"testing"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/hubstest"
)

// Three hubs ask and command each other. Packages sharded and adapter/redis
// test the same on servers.
func TestAcrossHubs(t *testing.T) {
	for name, counts := range map[string]bool{
		"on a backend that counts": true, "on a backend that does not count": false,
	} {
		t.Run(name, func(t *testing.T) {
			hubstest.Run(t, true, func(*testing.T) *hubstest.Backend {
				bus := memory.NewBus()
				var nodes []*memory.Adapter
				return &hubstest.Backend{
					Open: func(testing.TB) (adapter.Adapter, func()) {
						node := bus.NewAdapter()
						nodes = append(nodes, node)
						breaks := func() { node.Cut(); node.Heal() }
						if !counts {
							return uncounted{node}, breaks
						}
						return node, breaks
					},
					Move: func(context.Context, string) error { // all channels at once
						for _, node := range nodes {
							node.Move()
						}
						return nil
					},
				}
			})
		})
	}
}
