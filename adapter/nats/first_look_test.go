package nats_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/stretchr/testify/require"
)

// A hub that asks for a stream for the first time, while others append to it,
// may receive records that are later than the answer. Nothing is lost, so no
// epoch begins.
func TestFirstLookAtABusyStream(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, nil)
	one := nats.Options{Partitions: 1}
	publisher := attached(t, newAdapter(t, f.addr(0), one))
	ctx, cancel := context.WithCancel(t.Context())
	var appends sync.WaitGroup
	for _, channel := range []string{"a", "b", "c", "d"} {
		appends.Go(func() {
			for ctx.Err() == nil {
				_, _, err := publisher.Append(ctx, channel, record("frame"))
				if ctx.Err() == nil && err != nil {
					t.Error(err)
				}
			}
		})
	}
	defer appends.Wait()
	defer cancel()
	for range 12 {
		a := attached(t, newAdapter(t, f.addr(0), one))
		require.NoError(t, a.Subscribe(within(t), "a"))
		page, err := a.History(within(t), "a", adapter.Query{Limit: 1, Keep: record("").Keep, Time: time.Now()})
		require.NoError(t, err)
		require.Empty(t, page.Before)
	}
}
