package closing_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/internal/closing"
	"github.com/stretchr/testify/require"
)

func TestClosing(t *testing.T) {
	in := func(name string, f func(t *testing.T, c *closing.Closing)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, closing.New("test")) })
		})
	}
	in("waits for tasks, which shut ends", func(t *testing.T, c *closing.Closing) {
		end := make(chan struct{})
		var ended time.Time
		require.True(t, c.Go(func() {
			<-end
			time.Sleep(time.Second)
			ended = time.Now()
		}))
		require.True(t, c.Enter())
		time.AfterFunc(5*time.Second, c.Leave)
		began := time.Now()
		c.Begin(func() error { close(end); return nil })
		require.NoError(t, c.Wait(t.Context()))
		require.Equal(t, began.Add(time.Second), ended)
		require.Equal(t, began.Add(5*time.Second), time.Now())
	})
	in("lets no more tasks begin, also while shut runs", func(t *testing.T, c *closing.Closing) {
		c.Begin(func() error { time.Sleep(time.Second); return nil })
		require.False(t, c.Go(func() { t.Error("it has begun") }))
		require.False(t, c.Enter())
		require.NoError(t, c.Wait(t.Context()))
	})
	in("runs shut once, and tells all what it returned", func(t *testing.T, c *closing.Closing) {
		failed := errors.New("failed")
		c.Begin(func() error { return failed })
		c.Begin(func() error { t.Error("shut again"); return nil })
		require.ErrorIs(t, c.Wait(t.Context()), failed)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, c.Wait(ended), failed, "it is complete, so the context does not matter")
	})
	in("a caller waits no longer than its context", func(t *testing.T, c *closing.Closing) {
		require.True(t, c.Enter())
		c.Begin(nil)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		require.EqualError(t, c.Wait(ctx), "test: close: enough")
		c.Leave()
		require.NoError(t, c.Wait(t.Context()))
	})
}
