package wire

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The test vectors of WIRE.md.
func TestKeptVectors(t *testing.T) {
	doc, err := os.ReadFile("../../WIRE.md")
	require.NoError(t, err)
	frame, err := hex.DecodeString(vectors[0].hex)
	require.NoError(t, err)

	kept := AppendKept(nil, 1700000000000, 42, frame)
	require.True(t, strings.Contains(string(doc), hex.EncodeToString(kept)), "WIRE.md lacks %x", kept)
	epoch, offset, got, ok := DecodeKept(kept)
	require.True(t, ok)
	require.Equal(t, []any{uint64(1700000000000), uint64(42), frame}, []any{epoch, offset, got})

	late := AppendLate(nil, 1700000000000, 42, []byte("hello"))
	require.True(t, strings.Contains(string(doc), hex.EncodeToString(late)), "WIRE.md lacks %x", late)

	announced := AppendAnnouncement(nil, 1700000000000, 42, frame)
	require.True(t, strings.Contains(string(doc), hex.EncodeToString(announced)), "WIRE.md lacks %x", announced)
	a, ok := DecodeAnnouncement(announced)
	require.True(t, ok)
	require.Equal(t, []uint64{1700000000000, 42}, []uint64{a.Epoch, a.Offset})
	require.True(t, a.Is(frame))
	require.False(t, a.Is(frame[1:]))
	require.False(t, new(Announcement).Is(nil))

	for _, f := range [][]byte{nil, frame, kept[:4], kept[:6], announced[:9]} {
		_, _, _, ok = DecodeKept(f)
		require.False(t, ok)
		_, ok = DecodeAnnouncement(f)
		require.False(t, ok)
	}
	_, ok = DecodeAnnouncement(kept)
	require.False(t, ok)
}

func FuzzDecodeKept(f *testing.F) {
	f.Add(AppendKept(nil, 1700000000000, 42, []byte("hello")))
	f.Add(AppendAnnouncement(nil, 1700000000000, 42, []byte("hello")))
	f.Add([]byte("\xfafo\x01\x02\x05hello"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if epoch, offset, frame, ok := DecodeKept(payload); ok {
			e, o, again, ok := DecodeKept(AppendKept(nil, epoch, offset, frame))
			require.True(t, ok)
			require.Equal(t, []any{epoch, offset, string(frame)}, []any{e, o, string(again)})
			require.NotZero(t, offset)
		}
		if a, ok := DecodeAnnouncement(payload); ok {
			require.NotZero(t, a.Offset)
		}
	})
}
