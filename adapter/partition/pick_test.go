package partition_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/stretchr/testify/require"
)

func TestPick(t *testing.T) {
	t.Run("gives what is documented", func(t *testing.T) {
		three := []string{"a", "b", "c"}
		for _, v := range []struct {
			names []string
			room  string
			want  string
		}{
			{nil, "lobby", ""},
			{[]string{"only"}, "lobby", "only"},
			{three, "lobby", "a"},
			{three, "", "b"},
			{three, "room 1", "b"},
			{three, "room 2", "c"},
			{three, "größe {x}", "a"},
			{[]string{"10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.3:6379"}, "lobby", "10.0.0.2:6379"},
		} {
			require.Equal(t, v.want, partition.Pick(v.names, v.room), "%q of %q", v.room, v.names)
		}
	})
	t.Run("does not depend on the order of names", func(t *testing.T) {
		names := numbered(7)
		backwards := slices.Clone(names)
		slices.Reverse(backwards)
		for i := range 1000 {
			room := fmt.Sprint("room", i)
			require.Equal(t, partition.Pick(names, room), partition.Pick(backwards, room))
		}
	})
	t.Run("moves only the share of a new name", func(t *testing.T) {
		const rooms = 20_000
		for _, n := range []int{1, 2, 3, 4, 9} {
			names, moved := numbered(n), 0
			more := append(numbered(n), "new")
			for i := range rooms {
				room := fmt.Sprint("room", i)
				was, is := partition.Pick(names, room), partition.Pick(more, room)
				if was != is {
					moved++
					require.Equal(t, "new", is)
				}
			}
			require.InEpsilon(t, rooms/(n+1), moved, 0.06, "%d names", n)
		}
	})
	t.Run("spreads rooms evenly", func(t *testing.T) {
		const rooms = 20_000
		count := make(map[string]int)
		for i := range rooms {
			count[partition.Pick(numbered(5), fmt.Sprint(i))]++
		}
		for name, n := range count {
			require.InEpsilon(t, rooms/5, n, 0.06, name)
		}
	})
}

func TestRank(t *testing.T) {
	names := numbered(6)
	for i := range 200 {
		room := fmt.Sprint("room", i)
		ranked := partition.Rank(names, room)
		require.ElementsMatch(t, names, ranked)
		left := slices.Clone(names)
		for _, name := range ranked {
			require.Equal(t, name, partition.Pick(left, room))
			left = slices.DeleteFunc(left, func(n string) bool { return n == name })
		}
	}
	require.Equal(t, numbered(6), names, "it is not sorted in place")
}

func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprint("p", i))
	}
	return names
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{3, 10} {
		names := numbered(n)
		b.Run(fmt.Sprint(n, " names"), func(b *testing.B) {
			for b.Loop() {
				partition.Pick(names, "a room with a name")
			}
		})
	}
}
