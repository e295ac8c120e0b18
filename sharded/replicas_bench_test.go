package sharded_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/stretchr/testify/require"
)

// BenchmarkReadFrom publishes to a room that 24 hubs have members in, on a
// cluster with two replicas for each primary, one frame at a time. It reports
// for each frame what the busiest nodes of the room's shard do: the bytes that
// clients get of the primary and of a replica, and the processor time of both.
//
//	go test -run - -bench ReadFrom -benchtime 2000x ./sharded
func BenchmarkReadFrom(b *testing.B) {
	for name, from := range map[string]sharded.ReadFrom{
		"Primaries": sharded.Primaries, "Replicas": sharded.Replicas, "AllNodes": sharded.AllNodes,
	} {
		b.Run(name, func(b *testing.B) { benchmarkReadFrom(b, from) })
	}
}

func benchmarkReadFrom(b *testing.B, from sharded.ReadFrom) {
	const hubs, room = 24, "hot"
	c := wide(b, redistest.DefaultImage)
	publisher := newHubOf(b, c.Client(b), reads(from))
	members := make([]*fanout.Member, hubs)
	for i := range members {
		h := newHubOf(b, c.Client(b), reads(from))
		var err error
		members[i], err = h.Connect(nil)
		require.NoError(b, err)
		require.NoError(b, h.Room(room).Join(within(b), members[i]))
	}
	primary := c.Owner(slotOf(room))
	replicas := c.ReplicasOf(primary)
	frame := []byte(strings.Repeat("x", 1000))
	before := make(map[*redistest.Node]load)
	for _, n := range append(replicas, primary) {
		before[n] = loadOf(b, n)
	}
	for b.Loop() {
		require.NoError(b, publisher.Room(room).Publish(within(b), frame))
		for _, m := range members {
			_, err := m.Receive(within(b))
			require.NoError(b, err)
		}
	}
	report := func(name string, n *redistest.Node) {
		l := loadOf(b, n)
		l.bytes -= before[n].bytes
		l.cpu -= before[n].cpu
		b.ReportMetric(float64(l.bytes)/float64(b.N), name+"-B/op")
		b.ReportMetric(float64(l.cpu.Microseconds())/float64(b.N), name+"-µs/op")
	}
	report("primary", primary)
	for i, n := range replicas {
		report(fmt.Sprint("replica", i+1), n)
	}
}

// A load is what a node has done since it started.
type load struct {
	bytes int64 // sent to clients
	cpu   time.Duration
}

func loadOf(b *testing.B, n *redistest.Node) (l load) {
	info, err := n.Do(b.Context(), "INFO", "stats").ToString()
	require.NoError(b, err)
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, "total_net_output_bytes:"); ok {
			l.bytes, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			require.NoError(b, err)
		}
	}
	l.cpu, err = n.CPU(b.Context())
	require.NoError(b, err)
	return l
}
