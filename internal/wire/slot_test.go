package wire

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSlot(t *testing.T) {
	// 0x31C3 is the check value of CRC-16/XMODEM; the others are what CLUSTER
	// KEYSLOT says.
	for key, slot := range map[string]uint16{
		"123456789":          0x31C3,
		"":                   0,
		"foo":                12182,
		"{foo}bar":           12182,
		"foo{}{bar}":         8363,
		"foo{{bar}}zap":      4015,
		"fanout:r:{모두의 방}":   Slot("모두의 방"),
		"{unfinished":        Slot("{unfinished"),
		"fanout:r:{a}:probe": Slot("a"),
	} {
		require.Equal(t, slot, Slot(key), key)
	}
}
