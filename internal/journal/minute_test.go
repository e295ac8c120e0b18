package journal

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOncePerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o OncePerMinute
		require.True(t, o.Due(), "the first time")
		require.False(t, o.Due())
		time.Sleep(59 * time.Second)
		require.False(t, o.Due())
		time.Sleep(2 * time.Second)
		require.True(t, o.Due())
		require.False(t, o.Due())
	})
}
