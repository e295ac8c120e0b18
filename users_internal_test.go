package fanout

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConnectionsOfAUser(t *testing.T) {
	h, err := New(nil, nil)
	require.NoError(t, err)
	defer h.Close(t.Context())
	var all []*Member
	for range 4 {
		m, err := h.Connect(&MemberOptions{User: "ann"})
		require.NoError(t, err)
		all = append(all, m)
	}
	require.Equal(t, []uint64{4, 3, 2, 1}, h.numbersOf("ann"))
	require.Empty(t, h.numbersOf("bob"))
	for _, i := range []int{1, 3, 0, 2} { // one between others, the first, the last, the only one
		all[i].Close()
		all[i].Close()
		all[i] = nil
		left := []uint64{}
		for _, m := range all {
			if m != nil {
				left = append(left, m.num)
			}
		}
		require.ElementsMatch(t, left, h.numbersOf("ann"))
	}
	require.Empty(t, h.users)
}
