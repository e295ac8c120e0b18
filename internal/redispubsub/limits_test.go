package redispubsub

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseOutputLimit(t *testing.T) {
	for value, want := range map[string]int64{
		"normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60": 32 << 20,
		"normal 0 0 0 slave 1 1 60 pubsub 0 0 0":                              0,
		"pubsub 1048576 0 0":                                                  1 << 20,
		"":                                                                    defaultOutput, // refused
		"pubsub":                                                              defaultOutput,
		"pubsub many 0 0":                                                     defaultOutput,
		"pubsub -1 0 0":                                                       defaultOutput,
	} {
		require.Equal(t, want, parseOutputLimit(value), value)
	}
}

func TestLongestFrame(t *testing.T) {
	require.EqualValues(t, math.MaxInt64, longest(0))
	require.EqualValues(t, 28<<20-besides, longest(32<<20))
	require.EqualValues(t, 32<<20-besides, longest(40<<20))
	for limit := int64(1); limit < 1<<40; limit = limit*5/4 + 1 {
		n := longest(limit)
		require.Positive(t, n)
		require.LessOrEqual(t, n, limit)
		require.GreaterOrEqual(t, n, limit/2)
	}
}
