package fanout_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	h, err := fanout.New(nil, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	a, err := h.Connect(nil)
	require.NoError(t, err)
	b, _ := h.Connect(nil)
	require.NoError(t, h.Room("x").Join(ctx, a))
	require.NoError(t, h.Room("x").Join(ctx, b))
	require.NoError(t, h.Room("y").Join(ctx, b))
	for i := range 10 {
		require.NoError(t, h.In("x", "y").Except(a.ID()).Publish(ctx, fmt.Appendf(nil, "%d", i)))
		require.NoError(t, h.To(b.ID()).Publish(ctx, fmt.Appendf(nil, "d%d", i)))
		require.NoError(t, h.Everyone().Publish(ctx, fmt.Appendf(nil, "e%d", i)))
	}
	for range 30 {
		m, err := b.Receive(ctx)
		require.NoError(t, err)
		t.Log(m.Room, string(m.Data))
	}
	for range 10 {
		m, err := a.Receive(ctx)
		require.NoError(t, err)
		t.Log(m.Room, string(m.Data))
	}
	require.NoError(t, h.Health(ctx))
	t.Logf("%+v", h.Stats())
	require.NoError(t, h.Close(ctx))
}
