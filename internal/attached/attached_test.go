package attached

import (
	"testing"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

type pointer struct{ adapter.Adapter }

type unkeyed struct {
	adapter.Adapter
	all []int
}

func TestAdapters(t *testing.T) {
	var s Adapters
	a, b := &pointer{}, &pointer{}
	s.Add(a)
	require.True(t, s.Has(a))
	require.False(t, s.Has(b))
	s.Remove(a)
	require.False(t, s.Has(a))
	no := unkeyed{all: []int{1}}
	s.Add(no)
	s.Remove(no)
	require.False(t, s.Has(no), "it cannot be the key of a map")
}

func TestIsNil(t *testing.T) {
	require.True(t, IsNil((*pointer)(nil)))
	require.False(t, IsNil(&pointer{}))
	require.False(t, IsNil(unkeyed{}))
	require.False(t, IsNil(nil), "which stands for a hub without an adapter")
}

func TestSame(t *testing.T) {
	a, no := &pointer{}, unkeyed{}
	require.True(t, Same(a, a))
	require.False(t, Same(a, &pointer{Adapter: a}))
	require.False(t, Same(no, no), "they cannot be compared")
	require.False(t, Same(nil, a))
	require.False(t, Same(nil, nil))
}
