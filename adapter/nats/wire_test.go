package nats

import (
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

// Hubs of all versions have to agree on where a channel belongs.
func TestPartitionOf(t *testing.T) {
	for channel, want := range map[string]int{"": 37, "fanout:r:{lobby}": 54, "fanout:r:{room}": 1, "fanout:r:{房间}": 39} {
		require.Equal(t, want, partitionOf(channel, 64), channel)
	}
}

func TestBeacon(t *testing.T) {
	want := beacon{id: 7, partitions: 3, bye: true, sent: []uint64{0, 300, 1}, kept: []uint64{5, 0, 1 << 50}}
	r := &reader{rest: appendBeacon(nil, &want)[1:]}
	require.Equal(t, want, readBeacon(r, 3))
	require.False(t, r.bad)
	t.Run("of an adapter with other partitions has no numbers", func(t *testing.T) {
		got := readBeacon(&reader{rest: appendBeacon(nil, &want)[1:]}, 4)
		require.Equal(t, beacon{id: 7, partitions: 3, bye: true}, got)
	})
}

func TestAsk(t *testing.T) {
	want := ask{id: 7, round: 3, partitions: []int{0, 5}, sent: []uint64{9, 1000}}
	require.Equal(t, want, readAsk(&reader{rest: appendAsk(nil, want)[1:]}, 64))
	r := &reader{rest: appendAsk(nil, want)[1:]}
	readAsk(r, 5)
	require.True(t, r.bad, "a partition that there is not")
}

func TestRecord(t *testing.T) {
	want := record{
		at: adapter.Position{Epoch: 1_800_000_000_000, Offset: 70}, messages: 3, ordinal: 12, life: 99,
		before:  []adapter.PastEpoch{{Epoch: 5, Last: 6}, {Epoch: 7, Last: 8, Whole: true}},
		channel: "fanout:r:{room}", frame: []byte("frame"),
	}
	encoded := appendRecord(nil, &want)
	got, err := readRecord(&reader{rest: encoded[1:]})
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, uint64(68), got.first())
	for n := range len(encoded) - len("frame") - 1 {
		_, err := readRecord(&reader{rest: encoded[1 : 1+n]})
		require.ErrorIs(t, err, errMalformed)
	}
}

func TestClaim(t *testing.T) {
	want := claim{id: 7, wait: 120 * time.Millisecond, channel: "fanout:r:{room}"}
	r := &reader{rest: appendClaim(nil, want)[1:]}
	require.Equal(t, want, readClaim(r))
	require.False(t, r.bad)
}

// Anybody may publish to the subjects: what comes must not do harm.
func FuzzReaders(f *testing.F) {
	f.Add(appendRecord(nil, &record{at: adapter.Position{Epoch: 1, Offset: 1}, messages: 1, channel: "c", frame: []byte("f")})[1:])
	f.Add(appendAsk(nil, ask{partitions: []int{1}, sent: []uint64{1}})[1:])
	f.Add(appendBeacon(nil, &beacon{partitions: 2, sent: make([]uint64, 2), kept: make([]uint64, 2)})[1:])
	f.Add(appendClaim(nil, claim{wait: time.Second, channel: "c"})[1:])
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := readRecord(&reader{rest: data}); err == nil {
			require.LessOrEqual(t, r.messages, r.at.Offset)
			require.LessOrEqual(t, len(r.before), maxPast)
		}
		for _, p := range readAsk(&reader{rest: data}, 2).partitions {
			require.Less(t, p, 2)
		}
		require.LessOrEqual(t, readClaim(&reader{rest: data}).wait, maxClaim)
		readBeacon(&reader{rest: data}, 2)
		readMark(&reader{rest: data})
	})
}
