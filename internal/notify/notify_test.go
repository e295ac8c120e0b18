package notify

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestNotifier(t *testing.T) {
	t.Run("wakes all that wait, once", func(t *testing.T) {
		var n Notifier
		a, b := n.Wait(), n.Wait()
		require.False(t, closed(a))
		n.Notify()
		require.True(t, closed(a))
		require.True(t, closed(b))
		require.False(t, closed(n.Wait()), "later waits are for later changes")
	})
	t.Run("keeps nothing while nobody waits", func(t *testing.T) {
		var n Notifier
		n.Notify()
		require.Zero(t, n)
	})
}
