package redispubsub

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPoll(t *testing.T) {
	for _, test := range []struct {
		name     string
		answers  []string
		before   string
		down     string
		troubled string
		want     string
	}{
		{"the only answer", []string{"a"}, "b", "", "", "a"},
		{"the majority", []string{"a", "b", "b"}, "a", "", "", "b"},
		{"the majority, whatever was asked first", []string{"b", "a", "b"}, "", "", "", "b"},
		{"an owner that is down gives way to a minority", []string{"a", "a", "b"}, "a", "a", "", "b"},
		{"an owner in trouble does not", []string{"a", "a", "b"}, "a", "", "a", "a"},
		{"but does where votes are equal", []string{"a", "b"}, "a", "", "a", "b"},
		{"equal votes leave it as it was", []string{"a", "b"}, "b", "", "", "b"},
		{"all are down", []string{"a", "a", "b"}, "", "a", "", "b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p poll
			for _, a := range test.answers {
				p.add(soleOwner(a))
			}
			var before *table
			if test.before != "" {
				before = soleOwner(test.before)
			}
			is := func(name string) func(string) bool {
				return func(addr string) bool { return addr == name }
			}
			tab := p.result(before, is(test.down), is(test.troubled))
			require.Equal(t, test.want, tab.at(0))
			require.Equal(t, test.want, tab.at(slots-1))
		})
	}
	t.Run("a node that knows no owner of a slot has no vote", func(t *testing.T) {
		var p poll
		p.add(soleOwner("a"))
		for range 2 {
			nobody := soleOwner("b")
			nobody.made[7] = 0
			p.add(nobody)
		}
		tab := p.result(nil, func(string) bool { return false }, func(string) bool { return false })
		require.Equal(t, "a", tab.at(7))
		require.Equal(t, "b", tab.at(8))
	})
}

// What three nodes of a cluster say each second.
func BenchmarkPollResult(b *testing.B) {
	answer := newTable()
	for n, addr := range []string{"a:1", "b:1", "c:1"} {
		answer.give(n*slots/3, (n+1)*slots/3-1, answer.add(addr))
	}
	p := poll{answers: []*table{answer, answer, answer}}
	no := func(string) bool { return false }
	for b.Loop() {
		p.result(answer, no, no)
	}
}
