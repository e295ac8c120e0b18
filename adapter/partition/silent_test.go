package partition_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/stretchr/testify/require"
)

// An ill adapter works, and says that it is not healthy.
type ill struct {
	*memory.Adapter
	now *atomic.Bool
}

func (i ill) Health() error {
	if i.now.Load() {
		return errors.New("one room was refused")
	}
	return nil
}

// A hub starts, and partitions change, however other hubs are.
func TestHubsThatAreSilent(t *testing.T) {
	const room = "fanout:r:{room}"
	works := func(t *testing.T, a *partition.Adapter, within time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		require.NoError(t, a.Subscribe(ctx, room))
		_, err := a.Publish(ctx, room, []byte("x"))
		require.NoError(t, err)
	}
	t.Run("a hub that is dead, and counted, delays by Patience", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			dead := bus.NewAdapter()
			require.NoError(t, dead.Attach(new(sink)))
			require.NoError(t, dead.Subscribe(t.Context(), "fanout:p:{partitions}"))
			defer func() { require.NoError(t, dead.Close(context.Background())) }()

			a := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: bus.NewAdapter()})
			works(t, a, 2*quiet.Patience)
			ctx, cancel := context.WithTimeout(t.Context(), 2*quiet.Patience)
			defer cancel()
			require.NoError(t, a.Change(ctx, []partition.Partition{{Name: "p0"}, {Name: "p1", Adapter: memory.NewBus().NewAdapter()}}))
		})
	})
	t.Run("a hub whose partition is not healthy answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus, now := memory.NewBus(), new(atomic.Bool)
			a := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: ill{bus.NewAdapter(), now}})
			works(t, a, time.Second)
			now.Store(true)
			b := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: bus.NewAdapter()})
			works(t, b, time.Second)
		})
	})
	t.Run("a hub whose partition is not healthy starts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			now := new(atomic.Bool)
			now.Store(true)
			works(t, attached(t, new(sink), partition.Partition{Name: "p0", Adapter: ill{memory.NewBus().NewAdapter(), now}}), time.Second)
		})
	})
}
