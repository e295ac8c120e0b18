package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRoomsAreBackForEveryone(t *testing.T) {
	r := inSmall(t, roomsSuite)
	require.Len(t, r.cases, 1)
	c := r.cases[0]
	for _, p := range c.contestants {
		for _, key := range []string{"join", "back"} {
			v, ok := c.median(p.name, key)
			require.True(t, ok && v > 0, "%s: %s is %v", p.name, key, v)
		}
	}
	for _, target := range c.targets {
		require.NotContains(t, target.verdict(roomsSuite, c), "not measured")
	}
}
