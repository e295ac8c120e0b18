package migrate

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/lane"
	"github.com/stretchr/testify/require"
)

// A Subscribe that begins before the flip, and makes its channel after all
// channels were told of it, makes one that has flipped.
func TestSubscribeDuringFlip(t *testing.T) {
	a, err := New("test", memory.NewBus().NewAdapter(), memory.NewBus().NewAdapter(), nil)
	require.NoError(t, err)
	defer a.Close(context.Background())
	a.node.Logless(time.Now())
	a.next()
	old, err := a.enter(t.Context())
	require.NoError(t, err)
	require.True(t, old)
	a.node.Flip(time.Now()) // as another hub says, after this one was cut off
	a.next()
	a.flipChannels()

	c, old := a.channel("room", old)
	require.False(t, old, "it is not to be subscribed at the old backend")
	require.Equal(t, lane.New, c.lane.State())
	require.Zero(t, a.inflight)
}
