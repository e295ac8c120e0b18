package once

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSetIsExact(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		var s Set
		seen := make(map[[2]uint64]bool)
		for range 5000 {
			key := [2]uint64{random.Uint64N(3), random.Uint64N(1 + 500*(seed%5))}
			switch random.IntN(20) {
			case 0:
				key[1] = math.MaxUint64 - random.Uint64N(200)
			case 1:
				key[1] = random.Uint64()
			}
			require.Equal(t, !seen[key], s.Add(key[0], key[1], 1), "%v", key)
			seen[key] = true
		}
		blocks := 0
		for _, n := range s.publishers {
			for i, b := range n.blocks {
				require.True(t, i == 0 || n.blocks[i-1].end() < b.word, "blocks overlap or touch")
			}
			blocks += len(n.blocks)
		}
		require.Equal(t, blocks, s.Len())
	}
}

func TestSetIsCompact(t *testing.T) {
	const many = 100_000
	t.Run("without a hole", func(t *testing.T) {
		var s Set
		for id := range uint64(many) {
			require.True(t, s.Add(1, id+1, 0))
		}
		require.Equal(t, 2, s.Len(), "the first word lacks the number 0, which nobody uses")
	})
	t.Run("shuffled", func(t *testing.T) {
		var s Set
		for _, id := range rand.New(rand.NewPCG(1, 1)).Perm(many) {
			require.True(t, s.Add(1, uint64(id), 0))
		}
		require.Equal(t, 1, s.Len())
	})
	t.Run("every second", func(t *testing.T) {
		var s Set
		for id := range uint64(many) {
			s.Add(1, 2*id, 0)
		}
		require.LessOrEqual(t, s.Len(), 2*many/64+1)
	})
}

func TestForget(t *testing.T) {
	t.Run("drops what is old", func(t *testing.T) {
		var s Set
		for id := range uint64(1000) {
			s.Add(1, 100*id, uint32(id))
			s.Add(2+id, 1, uint32(id))
		}
		require.Equal(t, 2000, s.Len())
		require.EqualValues(t, 500, s.Median())
		s.Forget(900)
		require.Equal(t, 200, s.Len())
		require.False(t, s.Add(1, 90_000, 2000))
		require.False(t, s.Add(2+900, 1, 2000))
		require.True(t, s.Add(1, 89_900, 2000))
		require.True(t, s.Add(2+899, 1, 2000))
	})
	t.Run("keeps a run that goes on", func(t *testing.T) {
		var s Set
		for id := range uint64(1000) {
			s.Add(1, id, uint32(id))
		}
		s.Forget(999)
		require.False(t, s.Add(1, 0, 1000))
	})
	t.Run("gives memory back", func(t *testing.T) {
		heap := func() uint64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		var s Set
		for id := range uint64(50_000) {
			s.Add(id%1000, 100*id, 1)
		}
		full := heap() - before
		require.Less(t, full, uint64(50_000*BlockSize*4))
		s.Add(1, 1, 2)
		s.Forget(2)
		require.Equal(t, 1, s.Len())
		require.Less(t, heap(), before+64<<10)
		runtime.KeepAlive(&s)
	})
}

func BenchmarkAdd(b *testing.B) {
	var s Set
	for id := range uint64(100_000) { // 1,563 blocks
		s.Add(1, 2*id, 1)
	}
	b.Run("next", func(b *testing.B) {
		for id := uint64(1 << 30); b.Loop(); id++ {
			s.Add(1, id, 1)
		}
	})
	b.Run("seen", func(b *testing.B) {
		for id := uint64(0); b.Loop(); id += 2 {
			s.Add(1, id%200_000, 1)
		}
	})
}
