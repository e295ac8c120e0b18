package budget

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestBudget(t *testing.T) {
	ctx := context.Background()
	t.Run("has a limit", func(t *testing.T) {
		b := New(10)
		require.True(t, b.TryTake(6))
		require.True(t, b.TryTake(4))
		require.False(t, b.TryTake(1))
		b.Give(4)
		require.False(t, b.TryTake(5))
		require.True(t, b.TryTake(4))
	})
	t.Run("lets one through that is larger than all of it", func(t *testing.T) {
		b := New(10)
		require.True(t, b.TryTake(11))
		require.False(t, b.TryTake(1))
		b.Give(11)
		require.True(t, b.TryTake(1))
		require.False(t, b.TryTake(11))
	})
	t.Run("is waited for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := New(10)
			require.NoError(t, b.Take(ctx, ctx, 10))
			done := make(chan error)
			for range 2 {
				go func() { done <- b.Take(ctx, ctx, 6) }()
			}
			synctest.Wait()
			require.Empty(t, done)
			b.Give(10)
			require.NoError(t, <-done)
			synctest.Wait()
			require.Empty(t, done, "there is room for one only")
			b.Give(6)
			require.NoError(t, <-done)
		})
	})
	t.Run("is waited for no longer than either context lasts", func(t *testing.T) {
		b := New(10)
		require.True(t, b.TryTake(10))
		errA, errB := errors.New("a"), errors.New("b")
		ended := func(err error) context.Context {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(err)
			return ctx
		}
		require.ErrorIs(t, b.Take(ended(errA), ctx, 1), errA)
		require.ErrorIs(t, b.Take(ctx, ended(errB), 1), errB)
	})
}
