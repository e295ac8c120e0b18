package sharded_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// BenchmarkQuestions has one of three hubs, with 1,000 members each in a room,
// count and list all of them, over a cluster of three primaries. It reports
// medians.
//
//	go test -run - -bench Questions -benchtime 200x ./sharded
func BenchmarkQuestions(b *testing.B) {
	const members = 1000 // of each hub
	c := redistest.NewCluster(b, redistest.Options{})
	var hubs []*fanout.Hub
	for range 3 {
		h := newHubOf(b, c.Client(b), newAdapter)
		for i := range members {
			m, err := h.Connect(&fanout.MemberOptions{Info: fmt.Appendf(nil, "member %04d, with info of 40 bytes or so", i)})
			require.NoError(b, err)
			require.NoError(b, h.Room("x").Join(within(b), m))
		}
		hubs = append(hubs, h)
	}
	room, all := hubs[0].In("x"), members*len(hubs)
	b.Run("count", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			began := time.Now()
			n, err := room.Count(b.Context())
			took = append(took, time.Since(began))
			require.NoError(b, err)
			require.Equal(b, all, n)
		}
		b.ReportMetric(median(took), "median-ms")
	})
	b.Run("members", func(b *testing.B) {
		var took, first []time.Duration
		for b.Loop() {
			n, began := 0, time.Now()
			for _, err := range room.Members(b.Context()) {
				require.NoError(b, err)
				if n++; n == 1 {
					first = append(first, time.Since(began))
				}
			}
			took = append(took, time.Since(began))
			require.Equal(b, all, n)
		}
		b.ReportMetric(median(first), "median-ms-to-first")
		b.ReportMetric(median(took), "median-ms")
	})
}
