package gate

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOperation(t *testing.T) {
	closed := func(g *Gate) bool {
		select {
		case <-g.Empty():
			return true
		default:
			return false
		}
	}
	t.Run("counts until it ends", func(t *testing.T) {
		g := New()
		o := g.Begin()
		g.Close()
		require.False(t, closed(g))
		o.End()
		o.End()
		require.True(t, closed(g))
		require.Nil(t, g.Begin())
	})
	t.Run("does not count while code of others runs", func(t *testing.T) {
		g := New()
		o := g.Begin()
		require.True(t, o.Outside(func() { require.False(t, o.Runs()) }))
		require.True(t, o.Runs())
		require.False(t, o.Outside(func() {
			g.Close()
			require.True(t, closed(g))
		}))
		require.False(t, o.Runs())
		o.End()
	})
}
