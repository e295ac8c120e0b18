package nats_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/stretchr/testify/require"
)

// A hub that is far from the leader of a stream appends, although others that
// are close append to the same room without a pause.
func TestHubsThatAreFar(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		near       int
		subscribed bool
	}{
		"beside one":     {1, true},
		"beside two":     {2, true},
		"not subscribed": {1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t, 1, nil)
			p := newProxy(t, f.addr(0))
			far := attached(t, newAdapter(t, p.Addr(), nats.Options{}))
			all := []*nats.Adapter{far}
			for range test.near {
				all = append(all, attached(t, newAdapter(t, f.addr(0), nats.Options{})))
			}
			for _, a := range all {
				if test.subscribed {
					require.NoError(t, a.Subscribe(within(t), "a"))
				}
				_, _, err := a.Append(within(t), "a", record("before"))
				require.NoError(t, err)
			}
			p.Delay(20 * time.Millisecond)
			ctx, cancel := context.WithCancel(t.Context())
			var appends sync.WaitGroup
			for _, near := range all[1:] {
				appends.Go(func() {
					for ctx.Err() == nil {
						if _, _, err := near.Append(ctx, "a", record("near")); ctx.Err() == nil && err != nil {
							t.Error(err)
						}
					}
				})
			}
			defer appends.Wait()
			defer cancel()
			for range 5 {
				began := time.Now()
				_, _, err := far.Append(within(t), "a", record("far"))
				require.NoError(t, err)
				t.Log(time.Since(began))
			}
		})
	}
}
