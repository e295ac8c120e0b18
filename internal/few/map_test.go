package few

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

type value struct{ key string }

func (v *value) Key() string { return v.key }

func TestMap(t *testing.T) {
	t.Run("holds what a map holds", func(t *testing.T) {
		for seed := range uint64(20) {
			dice := rand.New(rand.NewPCG(seed, 1))
			var m Map[*value]
			model := map[string]*value{}
			keys := 1 + dice.IntN(3*most)
			for range 500 {
				key := fmt.Sprint(dice.IntN(keys))
				require.Same(t, model[key], m.Get(key))
				switch {
				case dice.IntN(3) == 0:
					m.Delete(key)
					delete(model, key)
				case model[key] == nil:
					model[key] = &value{key}
					m.Put(model[key])
				}
				list := m.List()
				require.Len(t, list, len(model))
				for _, v := range list {
					require.Same(t, model[v.key], v)
				}
			}
		}
	})
	t.Run("is two words", func(t *testing.T) {
		require.EqualValues(t, 16, unsafe.Sizeof(Map[*value]{}))
	})
	t.Run("ends an iteration when told", func(t *testing.T) {
		for _, n := range []int{1, 3, 2 * most} {
			var m Map[*value]
			for i := range n {
				m.Put(&value{fmt.Sprint(i)})
			}
			for stop := 1; stop <= n; stop++ {
				seen := 0
				for range m.All {
					if seen++; seen == stop {
						break
					}
				}
				require.Equal(t, stop, seen)
			}
			require.Len(t, slices.Collect(m.All), n)
		}
	})
}
