package fanout

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMembersOf(t *testing.T) {
	h, err := New(nil, nil)
	require.NoError(t, err)
	defer h.Close(t.Context())
	var all []*Member
	for range 4 {
		m, err := h.Connect(&MemberOptions{User: "ann"})
		require.NoError(t, err)
		all = append(all, m)
	}
	require.ElementsMatch(t, all, h.membersOf("ann"))
	require.Empty(t, h.membersOf("bob"))
	for _, i := range []int{1, 3, 0, 2} { // one between others, the first, the last, the only one
		all[i].Close()
		all[i].Close()
		all[i] = nil
		left := []*Member{}
		for _, m := range all {
			if m != nil {
				left = append(left, m)
			}
		}
		require.ElementsMatch(t, left, h.membersOf("ann"))
	}
	require.Empty(t, h.users)
}
