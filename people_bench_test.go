package fanout_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// crowd connects n members to a room of a hub.
func crowd(b *testing.B, h *fanout.Hub, n int) {
	for i := range n {
		m, err := h.Connect(&fanout.MemberOptions{Info: fmt.Appendf(nil, "member %d of a hub, with info of 64 bytes or so", i)})
		require.NoError(b, err)
		require.NoError(b, h.Room("x").Join(b.Context(), m))
	}
}

// Questions to three hubs with 1,000 members each.
func BenchmarkAcross(b *testing.B) {
	bus := memory.NewBus()
	var hubs []*fanout.Hub
	for range 3 {
		hubs = append(hubs, newHub(b, bus, nil))
		crowd(b, hubs[len(hubs)-1], 1000)
	}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			n, err := hubs[0].In("x").Count(b.Context())
			require.NoError(b, err)
			require.Equal(b, 3000, n)
		}
	})
	b.Run("members", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for _, err := range hubs[0].In("x").Members(b.Context()) {
				require.NoError(b, err)
				n++
			}
			require.Equal(b, 3000, n)
		}
	})
}

// A list of 100,000 members of another hub: how long until the first, and how
// much more memory both hubs take meanwhile.
func BenchmarkMembersOfALargeRoom(b *testing.B) {
	bus := memory.NewBus()
	asker, hub := newHub(b, bus, nil), newHub(b, bus, nil)
	crowd(b, hub, 100_000)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var first time.Duration
	most := before.HeapInuse
	for b.Loop() {
		n, began := 0, time.Now()
		for _, err := range asker.In("x").Members(b.Context()) {
			require.NoError(b, err)
			if n++; n == 1 {
				first += time.Since(began)
			}
			if n%10_000 == 0 {
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapInuse)
			}
		}
		require.Equal(b, 100_000, n)
	}
	b.ReportMetric(first.Seconds()*1000/float64(b.N), "ms-to-first")
	b.ReportMetric(float64(most-before.HeapInuse)/(1<<20), "MiB")
}
