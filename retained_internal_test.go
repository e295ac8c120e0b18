package fanout

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// There is one for each room with a history.
func TestSizeOfRetained(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(retained{}), uintptr(352))
}
