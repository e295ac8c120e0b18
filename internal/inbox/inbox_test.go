package inbox

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func head(hub, seq uint64) *wire.Header {
	return &wire.Header{Hub: hub, Stream: 1, Seq: seq, Count: 1}
}

func TestInbox(t *testing.T) {
	t.Run("reports what is missing", func(t *testing.T) {
		var b Inbox
		require.False(t, b.Restored(), "nothing has come that could be missing")
		_, lost := b.Accept(head(2, 1), false)
		require.False(t, lost)
		v, lost := b.Accept(head(2, 3), false)
		require.True(t, lost)
		require.Equal(t, 1, v.Missed)
	})
	t.Run("may lack messages after an interruption", func(t *testing.T) {
		var b Inbox
		b.Restored()
		b.Interrupted()
		_, lost := b.Accept(head(2, 1), false)
		require.True(t, lost)
		require.True(t, b.Restored())
		_, lost = b.Accept(head(2, 2), false)
		require.False(t, lost)
	})
	t.Run("does not count messages to the hub itself as use", func(t *testing.T) {
		var b Inbox
		b.Accept(head(1, 1), true)
		require.False(t, b.Restored())
	})
	t.Run("echoes messages of the hub itself", func(t *testing.T) {
		var b Inbox
		first, forgotten := b.Echo(), b.Echo()
		b.Forget(forgotten)
		b.Accept(head(2, 1), false)
		require.False(t, isClosed(first))
		b.Accept(head(1, 1), true)
		require.True(t, isClosed(first))
		require.False(t, isClosed(forgotten))
	})
}
