package fanout_test

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/hubstest"
)

const (
	// outage is how long a link is down that breaks for a moment: long enough
	// for others to announce who comes.
	outage = 200 * time.Millisecond
	// moveTime is how long channels have no server for a hub that notices at
	// once, and lateTime for how much longer others have none: a question is
	// sent again meanwhile.
	moveTime = 10 * time.Millisecond
	lateTime = 250 * time.Millisecond
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
						breaks := func() { // what others publish meanwhile is lost
							node.Cut()
							time.AfterFunc(outage, node.Heal)
						}
						if !counts {
							return uncounted{node}, breaks
						}
						return node, breaks
					},
					// Move moves all channels. What comes meanwhile is lost.
					Move: func(context.Context, string) error {
						for _, node := range nodes {
							node.Move()
							node.CutSubscriber()
						}
						<-time.After(moveTime)
						nodes[0].Heal() // the one that asks
						<-time.After(lateTime)
						for _, node := range nodes {
							node.Heal()
						}
						return nil
					},
				}
			})
		})
	}
}
