package rediscontract

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/internal/redistest"
)

// RunSentinel runs the contract on a primary with a replica, which the adapters
// find by a sentinel: the cases in which the primary dies, each on servers of
// its own, and then the others. A failover while the primary lives loses what
// it takes meanwhile, so it is none that the contract means by a move.
func RunSentinel(t *testing.T, newAdapter NewAdapter) {
	adaptertest.Run(t, func(tb testing.TB, n int) adaptertest.Nodes {
		s := redistest.NewSentinel(tb, redistest.Options{})
		ns := nodes(tb, s, n, newAdapter)
		ns.Faults.Fail = func(ctx context.Context, _ string) error { return s.Fail(ctx) }
		return ns
	}, &adaptertest.Options{Timeout: 2 * time.Minute, Only: func(c adaptertest.Case) bool {
		return c.Name == "failed-home-hides-no-loss" || c.Name == "history-epochs-tell-a-loss"
	}})
	s := redistest.NewSentinel(t, redistest.Options{})
	adaptertest.Run(t, func(tb testing.TB, n int) adaptertest.Nodes {
		return nodes(tb, s, n, newAdapter)
	}, &adaptertest.Options{
		Timeout: 2 * time.Minute, Parallel: true,
		Only: func(c adaptertest.Case) bool { return !c.MovesHome() },
	})
}
