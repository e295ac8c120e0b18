package wire

import (
	"encoding/hex"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The test vector of WIRE.md.
func TestUnkeptVector(t *testing.T) {
	doc, err := os.ReadFile("../../WIRE.md")
	require.NoError(t, err)
	header := Header{Hub: 0x0123456789abcdef, Time: 1700000000000, Stream: 1, Seq: 1}
	notice := AppendUnkept(nil, header.Hub, header.Time, encode(header, Message{ID: 9, Data: []byte("hi")}))
	require.Contains(t, string(doc), "    "+hex.EncodeToString(notice)+"\n")
}

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
