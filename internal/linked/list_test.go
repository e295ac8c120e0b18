package linked

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// An element has a number; 0 is that of a mark.
type element struct {
	number int
	links  Links[element]
}

func (e *element) Links() *Links[element] { return &e.links }
func (e *element) IsMark() bool           { return e.number == 0 }

type list = List[element, *element]

// numbers returns the numbers of the elements of a list.
func numbers(l *list) (all []int) {
	for e := range l.All {
		all = append(all, e.number)
	}
	return all
}

// with returns a list of n elements, of which the first has the number n.
func with(n int) (l *list, all map[int]*element) {
	l, all = new(list), make(map[int]*element)
	for i := range n {
		e := &element{number: i + 1}
		all[e.number] = e
		l.Add(e)
	}
	return l, all
}

func TestList(t *testing.T) {
	t.Run("begins with the element that was added last", func(t *testing.T) {
		l, _ := with(3)
		require.Equal(t, []int{3, 2, 1}, numbers(l))
		require.False(t, l.Empty())
		require.True(t, new(list).Empty())
	})
	t.Run("removes any element", func(t *testing.T) {
		for _, order := range [][]int{{1, 2, 3}, {3, 2, 1}, {2, 1, 3}, {2, 3, 1}} {
			l, all := with(3)
			left := []int{3, 2, 1}
			for _, n := range order {
				l.Remove(all[n])
				left = slices.DeleteFunc(left, func(i int) bool { return i == n })
				require.Equal(t, left, slices.AppendSeq([]int{}, slices.Values(numbers(l))))
				require.Zero(t, all[n].links)
			}
			require.True(t, l.Empty())
		}
	})
	t.Run("takes back what it has removed", func(t *testing.T) {
		l, all := with(3)
		l.Remove(all[1])
		l.Add(all[1])
		require.Equal(t, []int{1, 3, 2}, numbers(l))
	})
	t.Run("stops when yield returns false", func(t *testing.T) {
		l, _ := with(3)
		for e := range l.All {
			require.Equal(t, 3, e.number)
			break
		}
	})
}

func TestWalk(t *testing.T) {
	t.Run("sees all elements, some at a time", func(t *testing.T) {
		for n := range 8 {
			l, _ := with(n)
			w := l.Walk(new(element))
			var seen []int
			for {
				step := w.Next(make([]*element, 0, 3))
				for _, e := range step {
					seen = append(seen, e.number)
				}
				if len(step) < 3 {
					break
				}
			}
			require.Equal(t, numbers(l), seen)
			require.Zero(t, w.mark.links, "the mark is out")
			require.Empty(t, w.Next(make([]*element, 0, 3)), "it is over")
		}
	})
	t.Run("leaves no mark when it ends early", func(t *testing.T) {
		l, all := with(3)
		w := l.Walk(new(element))
		require.Len(t, w.Next(make([]*element, 0, 2)), 2)
		require.Equal(t, []int{3, 2, 1}, numbers(l), "the list passes over the mark")
		w.End()
		w.End()
		for _, e := range all {
			l.Remove(e)
		}
		require.True(t, l.Empty())
	})
	t.Run("continues after its neighbours were removed", func(t *testing.T) {
		l, all := with(5)
		w := l.Walk(new(element))
		w.Next(make([]*element, 0, 2))
		l.Remove(all[4])
		l.Remove(all[3])
		require.Equal(t, []*element{all[2], all[1]}, w.Next(make([]*element, 0, 3)))
	})
}

// Two walks at a time, while elements come and go: each sees what was there all
// the time once, and nothing twice.
func TestWalksOfAListThatChanges(t *testing.T) {
	for seed := range uint64(200) {
		dice := rand.New(rand.NewPCG(seed, 0))
		l, all := with(dice.IntN(40))
		there := numbers(l) // all the time
		walks := []Walk[element, *element]{l.Walk(new(element)), l.Walk(new(element))}
		seen := make([][]int, len(walks))
		for next := len(all); ; {
			moved := false
			for i := range walks {
				if dice.IntN(3) == 0 {
					moved = true
					continue
				}
				step := walks[i].Next(make([]*element, 0, 1+dice.IntN(4)))
				moved = moved || len(step) > 0
				for _, e := range step {
					seen[i] = append(seen[i], e.number)
				}
			}
			if !moved {
				break
			}
			if next++; dice.IntN(2) == 0 {
				all[next] = &element{number: next}
				l.Add(all[next])
			}
			if left := numbers(l); len(left) > 0 && dice.IntN(2) == 0 {
				gone := left[dice.IntN(len(left))]
				l.Remove(all[gone])
				there = slices.DeleteFunc(there, func(n int) bool { return n == gone })
			}
		}
		for i := range walks {
			require.Subset(t, seen[i], there, "seed %d", seed)
			slices.Sort(seen[i])
			require.Len(t, slices.Compact(slices.Clone(seen[i])), len(seen[i]), "seed %d", seed)
			walks[i].End()
		}
		for e := l.first; e != nil; e = e.links.next {
			require.False(t, e.IsMark())
		}
	}
}
