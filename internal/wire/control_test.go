package wire

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestControl(t *testing.T) {
	frame := AppendControl(nil, 7, 8, []byte("payload"))
	t.Run("is read as it was written", func(t *testing.T) {
		hub, payload, err := DecodeControl(frame)
		require.NoError(t, err)
		require.Equal(t, uint64(7), hub)
		require.Equal(t, "payload", string(payload))
	})
	t.Run("is a notice for everybody else", func(t *testing.T) {
		_, _, err := Decode(frame)
		require.ErrorIs(t, err, ErrNotice)
		_, err = DecodeHello(frame)
		require.ErrorIs(t, err, ErrNotice)
		_, _, err = DecodeControl(AppendHello(nil, &Hello{Hub: 1, Level: 1}))
		require.ErrorIs(t, err, ErrNotice)
	})
	t.Run("may have fields of a later release", func(t *testing.T) {
		for must, want := range map[bool]error{false: nil, true: ErrNotice} {
			b := AppendControl(nil, 7, 8, nil)
			b[5] |= flagFields | frameHints
			b = append(appendFields(b, AppendField(nil, Field{Number: 9, Must: must})), "payload"...)
			_, payload, err := DecodeControl(b)
			require.ErrorIs(t, err, want)
			if !must {
				require.Equal(t, "payload", string(payload))
			}
		}
	})
	t.Run("is refused if it is malformed", func(t *testing.T) {
		flags, fields := AppendControl(nil, 7, 8, nil), AppendControl(nil, 7, 8, nil)
		flags[5], fields[5] = 0x80, flagFields
		for _, b := range [][]byte{nil, frame[:headerMin-1], []byte("0123456789012345678901234567"), flags, fields} {
			_, _, err := DecodeControl(b)
			require.ErrorIs(t, err, ErrMalformed)
		}
	})
}
