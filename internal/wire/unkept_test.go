package wire

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnkept(t *testing.T) {
	notice := AppendUnkept(nil, 7, 8, []byte("frame"))
	carried, ok := DecodeUnkept(notice)
	require.True(t, ok)
	require.Equal(t, "frame", string(carried))
	_, _, err := Decode(notice)
	require.ErrorIs(t, err, ErrNotice, "an older release ignores it")
	for n := range headerMin {
		_, ok := DecodeUnkept(notice[:n])
		require.False(t, ok)
	}
	for i := range 6 { // magic, version, kind, flags
		notice[i] ^= 1
		_, ok := DecodeUnkept(notice)
		require.False(t, ok)
		notice[i] ^= 1
	}
}
