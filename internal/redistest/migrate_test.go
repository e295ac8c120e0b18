package redistest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMigrateSlotsWithTheirKeys(t *testing.T) {
	c := primaries(t)
	client := c.Client(t)
	from, to := c.Owner(0), c.Owner(Slots-1)
	slots := c.SlotsOf(from)[:1000]
	for i := range 250 { // more than are moved at once
		key := fmt.Sprintf("{%s}%d", keyIn(slots[0]), i)
		require.NoError(t, set(t.Context(), client, key, "v"))
	}
	require.NoError(t, c.MigrateSlots(t.Context(), from, to, slots))
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, to, c.Owner(slots[0]))
	require.Equal(t, to, c.Owner(slots[999]))
	require.Equal(t, from, c.Owner(slots[999]+1))
	for i := range 250 {
		got, err := get(t.Context(), client, fmt.Sprintf("{%s}%d", keyIn(slots[0]), i))
		require.NoError(t, err)
		require.Equal(t, "v", got)
	}
}

func TestMigrateOneSlot(t *testing.T) {
	c := primaries(t)
	client := c.Client(t)
	from, to := c.Owner(8000), c.Owner(Slots-1)
	require.NoError(t, set(t.Context(), client, keyIn(8000), "v"))
	require.NoError(t, c.MigrateSlot(t.Context(), from, to, 8000))
	require.Equal(t, to, c.Owner(8000))
	got, err := get(t.Context(), client, keyIn(8000))
	require.NoError(t, err)
	require.Equal(t, "v", got)
}

func TestMigrateFromTheWrongNode(t *testing.T) {
	c := primaries(t)
	err := c.MigrateSlots(t.Context(), c.Owner(Slots-1), c.Owner(8001), []int{8001})
	require.ErrorContains(t, err, "move 1 slots")
}

func TestFailover(t *testing.T) {
	c := replicated(t)
	old := c.Owner(0)
	replica := c.ReplicasOf(old)[0]
	require.NoError(t, c.Failover(t.Context(), replica))
	require.Equal(t, replica, c.Owner(0))
	require.NoError(t, c.WaitHealthy(t.Context()))
	require.Equal(t, []*Node{old}, c.ReplicasOf(replica))
}

func TestAssignGivesASlotToTheOwnerThatLostIt(t *testing.T) {
	c := primaries(t)
	slots := []int{9000, 9001}
	from, to := c.Owner(9000), c.Owner(Slots-1)
	require.NoError(t, c.MigrateSlots(t.Context(), from, to, slots))
	require.NoError(t, to.Do(t.Context(), "CLUSTER", "DELSLOTS", "9001").Error())
	require.Error(t, to.knowsOwner(t.Context(), to, slots))
	require.NoError(t, c.assign(t.Context(), from, to, slots))
	require.NoError(t, to.knowsOwner(t.Context(), to, slots))
	require.NoError(t, c.WaitHealthy(t.Context()))
}
