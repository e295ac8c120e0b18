package redispubsub

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTable(t *testing.T) {
	t.Run("has no owners at first", func(t *testing.T) {
		tab := newTable()
		require.True(t, tab.empty())
		require.Empty(t, tab.at(0))
		require.False(t, tab.owns(""))
		require.False(t, tab.owns("a"))
	})
	t.Run("has one owner without a cluster", func(t *testing.T) {
		tab := soleOwner("a")
		require.False(t, tab.empty())
		require.Equal(t, "a", tab.at(0))
		require.Equal(t, "a", tab.at(slots-1))
		require.True(t, tab.owns("a"))
	})
	t.Run("gives slots to owners that it knows", func(t *testing.T) {
		tab := soleOwner("a")
		require.False(t, tab.note(7, "b"))
		require.False(t, tab.note(7, ""))
		require.Equal(t, "a", tab.at(7))
		tab.add("b")
		require.False(t, tab.owns("b"))
		require.True(t, tab.note(7, "b"))
		require.Equal(t, "b", tab.at(7))
		require.Equal(t, "a", tab.at(8))
		require.True(t, tab.owns("b"))
	})
	t.Run("credits what another says that one owns", func(t *testing.T) {
		tab, says := soleOwner("a"), newTable()
		says.add("c")
		says.give(10, 19, says.add("b"))
		says.give(20, 29, says.add("c"))
		tab.credit("unknown", says)
		tab.credit("b", says)
		require.Equal(t, "a", tab.at(9))
		require.Equal(t, "b", tab.at(10))
		require.Equal(t, "b", tab.at(19))
		require.Equal(t, "a", tab.at(20))
	})
}
