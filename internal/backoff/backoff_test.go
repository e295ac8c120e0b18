package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBackoff(t *testing.T) {
	t.Run("doubles from First to Max", func(t *testing.T) {
		b := Backoff{First: 10, Max: 70}
		for _, bound := range []time.Duration{10, 20, 40, 70, 70} {
			require.Equal(t, bound, b.Bound())
			d := b.Next()
			require.GreaterOrEqual(t, d, bound/2)
			require.LessOrEqual(t, d, bound)
		}
	})
	t.Run("begins again after Reset", func(t *testing.T) {
		var b Backoff
		b.Next()
		b.Next()
		b.Reset()
		require.Equal(t, First, b.Bound())
	})
	t.Run("has defaults", func(t *testing.T) {
		var b Backoff
		for range 20 {
			require.LessOrEqual(t, b.Next(), Max)
		}
		require.Equal(t, Max, b.Bound())
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{First: time.Second, Max: time.Second}
		began := time.Now()
		require.True(t, b.Wait(context.Background()))
		require.GreaterOrEqual(t, time.Since(began), time.Second/2)

		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		began = time.Now()
		require.False(t, b.Wait(ctx))
		require.Equal(t, time.Millisecond, time.Since(began), "it ends with its context")
	})
}
