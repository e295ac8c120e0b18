package partition_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/stretchr/testify/require"
)

// An observed adapter says when it is attached, and whether it was closed.
type observed struct {
	*memory.Adapter
	attached func()
	closed   bool
}

func (o *observed) Attach(r adapter.Receiver) error {
	err := o.Adapter.Attach(r)
	o.attached()
	return err
}

func (o *observed) Close(ctx context.Context) error {
	o.closed = true
	return o.Adapter.Close(ctx)
}

// Close closes the adapters that a Change brings at the same time.
func TestCloseDuringChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: memory.NewBus().NewAdapter()})
		o := &observed{Adapter: memory.NewBus().NewAdapter()}
		o.attached = func() { require.NoError(t, a.Close(t.Context())) }
		err := a.Change(t.Context(), []partition.Partition{{Name: "p0"}, {Name: "p1", Adapter: o}})
		require.ErrorIs(t, err, adapter.ErrClosed)
		require.True(t, o.closed)
	})
}
