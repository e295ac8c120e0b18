package redistest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestScope(t *testing.T) {
	t.Run("is one server and what is quick without the variable", func(t *testing.T) {
		t.Setenv("FANOUT_TEST_ALL", "")
		require.Equal(t, []string{DefaultImage}, Images())
		require.Equal(t, 2, Rounds(2, 9))
		ran := false
		t.Run("long", func(t *testing.T) {
			Long(t)
			ran = true
		})
		require.False(t, ran)
	})
	t.Run("is everything with it", func(t *testing.T) {
		t.Setenv("FANOUT_TEST_ALL", "1")
		require.Contains(t, Images(), DefaultImage)
		require.Len(t, Images(), 3)
		require.Equal(t, 9, Rounds(2, 9))
		ran := false
		t.Run("long", func(t *testing.T) {
			Long(t)
			ran = true
		})
		require.True(t, ran)
	})
}
