package sharded_test

import (
	"context"
	"slices"
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
)

func TestAcrossHubs(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, withReplicas)
	rediscontract.RunAcross(t, c.Client, newAdapter, func(ctx context.Context, channel string) error {
		slot := redistest.Slot(channel)
		from := c.Owner(slot)
		to := c.Primaries()[slices.IndexFunc(c.Primaries(), func(n *redistest.Node) bool { return n != from })]
		return c.MigrateSlot(ctx, from, to, slot)
	})
}

func TestHubsOfProcesses(t *testing.T) {
	rediscontract.RunProcesses(t, redistest.Rounds(2, 5), cluster(t), newAdapter, rediscontract.GoneWithin)
}
