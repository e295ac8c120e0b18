package roomlog

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

type counter struct{ n *atomic.Int64 }

func (c counter) Wake() { c.n.Add(1) }

func TestWakers(t *testing.T) {
	crowd := func(size int, woken *atomic.Int64) *Log[item, Owner] {
		l := newLog(4, 1<<20, Oldest)
		for range size {
			c := new(Cursor[item, Owner])
			l.Open(c, counter{woken})
			c.Park()
		}
		return l
	}
	t.Run("wake everybody once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var w Wakers[item, Owner]
			var wg sync.WaitGroup
			w.Start(3, wg.Go)
			var woken atomic.Int64
			sum := int64(0)
			for _, size := range []int{1, wakeShare, wakeShare + 1, 10*wakeShare + 7} {
				w.Add(crowd(size, &woken).Append(Gap{}, []item{{n: 1}}))
				sum += int64(size)
			}
			synctest.Wait()
			require.Equal(t, sum, woken.Load())
			require.Empty(t, w.queue)
			w.Stop()
			wg.Wait()
		})
	})
	t.Run("end when stopped", func(t *testing.T) {
		var w Wakers[item, Owner]
		var wg sync.WaitGroup
		w.Start(2, wg.Go)
		w.Stop()
		wg.Wait()
		var woken atomic.Int64
		w.Add(crowd(5, &woken).Append(Gap{}, []item{{n: 1}}))
		require.Zero(t, woken.Load())
	})
}
