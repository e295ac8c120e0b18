package trial

import (
	"errors"
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

func TestTrial(t *testing.T) {
	trial, failure := New(), errors.New("no rights")
	changed, err := trial.Last()
	require.NoError(t, err)
	require.False(t, closed(changed))
	require.False(t, trial.Succeeded())
	t.Run("wakes those that wait when an attempt fails", func(t *testing.T) {
		trial.Fail(failure)
		require.True(t, closed(changed))
		changed, err = trial.Last()
		require.Same(t, failure, err)
		require.False(t, closed(changed))
	})
	t.Run("forgets the failure when the next attempt is under way", func(t *testing.T) {
		trial.Retry()
		require.True(t, closed(changed))
		changed, err = trial.Last()
		require.NoError(t, err)
		require.False(t, trial.Succeeded())
		require.False(t, closed(trial.Done()))
	})
	t.Run("succeeds for good", func(t *testing.T) {
		trial.Succeed()
		trial.Fail(failure)
		trial.Succeed()
		require.True(t, closed(changed))
		require.True(t, trial.Succeeded())
		require.True(t, closed(trial.Done()))
		changed, err = trial.Last()
		require.NoError(t, err)
		require.True(t, closed(changed))
	})
}
