package nats

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A leader that was cut off answers from what it has until it notices. What a
// channel lacks counts as lost when no answer had it for 10 s.
func TestStreamLosses(t *testing.T) {
	bubble := func(name string, f func(t *testing.T, s *streams, replicated *stream)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &streams{known: make(map[int]*stream), behind: make(map[string]time.Time)}
				f(t, s, &stream{created: time.Now()})
			})
		})
	}
	notYet := func(t *testing.T, s *streams, channel string, was *stream) {
		t.Helper()
		_, err := s.lost(1, channel, was)
		require.ErrorContains(t, err, "its leader may be an old one")
		require.Empty(t, s.known)
	}
	bubble("one server has no old leader", func(t *testing.T, s *streams, _ *stream) {
		now, err := s.lost(1, "x", &stream{life: 7})
		require.NoError(t, err)
		require.Equal(t, uint64(7), now.life)
		require.Equal(t, now.now(), now.floor)
		require.Same(t, now, s.known[1])
	})
	bubble("is believed after ten seconds", func(t *testing.T, s *streams, was *stream) {
		notYet(t, s, "x", was)
		time.Sleep(believeLoss - time.Nanosecond)
		notYet(t, s, "x", was)
		time.Sleep(time.Nanosecond)
		now, err := s.lost(1, "x", was)
		require.NoError(t, err)
		require.NotZero(t, now.floor)
		require.Zero(t, was.floor, "the earlier state is not changed")
		require.Empty(t, s.behind)
	})
	bubble("an answer that has everything begins it anew", func(t *testing.T, s *streams, was *stream) {
		notYet(t, s, "x", was)
		s.complete("x")
		time.Sleep(2 * believeLoss)
		notYet(t, s, "x", was)
	})
	bubble("other channels do not matter", func(t *testing.T, s *streams, was *stream) {
		notYet(t, s, "x", was)
		s.complete("y")
		time.Sleep(believeLoss)
		notYet(t, s, "y", was)
		_, err := s.lost(1, "x", was)
		require.NoError(t, err)
	})
	bubble("what nobody has looked at for long is forgotten", func(t *testing.T, s *streams, was *stream) {
		notYet(t, s, "x", was)
		time.Sleep(forgetBehind + time.Nanosecond)
		notYet(t, s, "y", was)
		require.Len(t, s.behind, 1)
		notYet(t, s, "x", was)
	})
}

// Only what was seen before the stream was asked can be lost: others append
// while it answers.
func TestStreamLearned(t *testing.T) {
	for _, c := range []struct {
		name                   string
		kept, last, seen, want uint64 // of lastKept
		lost                   bool
	}{
		{"what came meanwhile is not lost", 6, 5, 5, 6, false},
		{"what was seen before is", 6, 3, 5, 3, true},
		{"a stream that has more", 5, 8, 5, 8, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &Adapter{lastKept: []uint64{c.kept}}
			a.streams.known, a.streams.fresh = make(map[int]*stream), make(map[int]bool)
			a.learn(0, &stream{life: 1}, c.last, c.seen)
			require.Equal(t, c.lost, a.streams.known[0].floor > 0)
			require.Equal(t, c.want, a.lastKept[0])
		})
	}
}

func TestHeadInDoubt(t *testing.T) {
	var h heads
	h.doubt("x")
	_, ok := h.get("x")
	require.False(t, ok)
	h.set("x", head{seq: 5})
	h.doubt("x")
	v, ok := h.get("x")
	require.True(t, ok, "what the stream had is not forgotten")
	require.True(t, v.doubted)
	require.Equal(t, uint64(5), v.seq)
	h.set("x", head{seq: 6})
	v, _ = h.get("x")
	require.False(t, v.doubted, "the stream was asked")
}

func TestHeadsOfAPartition(t *testing.T) {
	const partitions = 4
	var h heads
	channels := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	for _, channel := range channels {
		h.set(channel, head{seq: 1})
	}
	p := partitionOf("a", partitions)
	h.dropOf(p, partitions)
	kept := 0
	for _, channel := range channels {
		_, ok := h.get(channel)
		require.Equal(t, partitionOf(channel, partitions) != p, ok, channel)
		if ok {
			kept++
		}
	}
	require.NotZero(t, kept)
}

// A server may take long to answer, most of all when it creates a stream. That
// says nothing about its clock: taken for a difference, it made records look
// too old to be kept.
func TestSkewOf(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ended := began.Add(2 * time.Second)
	for at, want := range map[time.Duration]time.Duration{
		0:                            0,
		time.Second:                  0,
		2 * time.Second:              0, // told at the end of a long call
		-time.Second:                 -time.Second,
		5 * time.Second:              3 * time.Second,
		2*time.Second + 1:            1,
		-time.Hour:                   -time.Hour,
		time.Hour + ended.Sub(began): time.Hour,
	} {
		require.Equal(t, want, skewOf(began.Add(at), began, ended), at)
	}
}
