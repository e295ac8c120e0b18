package unsent

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

var cause = &fs.PathError{Op: "read", Path: "x", Err: errors.New("broken")}

func TestHide(t *testing.T) {
	t.Run("takes ErrUnsent off, and leaves the cause", func(t *testing.T) {
		for _, err := range []error{
			adapter.Unsent(cause),
			fmt.Errorf("%w: %w", adapter.ErrUnsent, cause),
			fmt.Errorf("%w: %w", cause, adapter.ErrUnsent),
		} {
			hidden := Hide(err)
			require.NotErrorIs(t, hidden, adapter.ErrUnsent)
			require.ErrorIs(t, hidden, cause)
			path, is := errors.AsType[*fs.PathError](hidden)
			require.True(t, is)
			require.Equal(t, cause, path)
			require.Equal(t, cause.Error(), hidden.Error())
		}
	})
	t.Run("leaves other errors", func(t *testing.T) {
		require.Equal(t, error(cause), Hide(cause))
		require.NoError(t, Hide(nil))
	})
}

func TestMark(t *testing.T) {
	require.ErrorIs(t, Mark(cause, true), adapter.ErrUnsent)
	require.Equal(t, adapter.Unsent(cause), Mark(adapter.Unsent(cause), true), "once is enough")
	require.Equal(t, error(cause), Mark(cause, false))
	arrived := Mark(adapter.Unsent(cause), false)
	require.NotErrorIs(t, arrived, adapter.ErrUnsent)
	require.ErrorIs(t, arrived, cause)
	require.Contains(t, arrived.Error(), "may have arrived")
}

func TestJoin(t *testing.T) {
	require.NoError(t, Join([]error{nil, nil}))
	require.ErrorIs(t, Join([]error{adapter.Unsent(cause), adapter.Unsent(cause)}), adapter.ErrUnsent)
	for _, other := range []error{nil, errors.New("timeout")} {
		joined := Join([]error{adapter.Unsent(cause), other})
		require.NotErrorIs(t, joined, adapter.ErrUnsent, "a part was sent, or may have been")
		require.ErrorIs(t, joined, cause)
	}
}
