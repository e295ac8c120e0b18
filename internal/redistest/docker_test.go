package redistest

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestDaemonThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := make(chan struct{})
		err := bounded(func() error { <-hangs; return nil })
		require.ErrorContains(t, err, "no answer from Docker within 30s")
		close(hangs)
		require.NoError(t, bounded(func() error { return nil }))
	})
}
