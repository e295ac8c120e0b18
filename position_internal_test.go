package fanout

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout/adapter"
)

// The position of a room, as text, is that of WIRE.md.
func TestPositionVector(t *testing.T) {
	doc, err := os.ReadFile("WIRE.md")
	require.NoError(t, err)
	p := public(adapter.Position{Epoch: 1_700_000_000_000, Offset: 42}, roomMark("fanout:r:{lobby}"))
	require.Contains(t, string(doc), "    "+p.String()+"\n")
}
