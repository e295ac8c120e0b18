package roomlog

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGapWithTimes(t *testing.T) {
	before := Gap{Missed: 30, From: 2, Until: 4}
	for opened, want := range map[uint32]Gap{
		1: {Missed: 30}, 2: {Missed: 30}, 3: {Unknown: true}, 4: {}, 5: {},
	} {
		t.Run("is its own for each time of opening", func(t *testing.T) {
			require.Equal(t, want, before.For(opened))
		})
		for _, lags := range []bool{false, true} {
			t.Run("is met in the order and in a jump", func(t *testing.T) {
				l := newLog(4, 1<<20, Oldest)
				c := open(l)
				say(l, 1)
				l.AppendAfter(before, Gap{Missed: 1}, []item{{n: 2}}).Wake(1)
				if lags {
					for n := 3; n <= 9; n++ {
						say(l, n)
					}
				}
				var got Gap
				seen := 0
				for {
					items, _, gap := c.Peek()
					if gap {
						g := c.TakeGap(opened)
						got = Gap{Missed: got.Missed + g.Missed, Unknown: got.Unknown || g.Unknown}
						continue
					}
					if items == nil {
						break
					}
					seen += len(items)
					c.Advance(len(items))
				}
				if lags {
					got.Missed -= 9 - seen // its own
				}
				want := want
				want.Missed++
				require.Equal(t, want, got)
			})
		}
	}
	t.Run("only where the cursor has been", func(t *testing.T) {
		l := newLog(4, 1<<20, Oldest)
		early := open(l)
		l.AppendAfter(before, Gap{}, []item{{n: 1}}).Wake(1)
		c := open(l)
		for n := range 10 {
			say(l, n)
		}
		require.Equal(t, Gap{Missed: 10}, c.ToEnd(5))
		require.Equal(t, Gap{Missed: 11}, early.ToEnd(4))
		require.Equal(t, Gap{}, early.ToEnd(4))
	})
}

// What is remembered of such gaps is bounded. A cursor that lags behind what
// was dropped has missed an unknown number, unless all of it concerns it.
func TestGapsWithTimesAreBounded(t *testing.T) {
	l := newLog(4, 1<<20, Oldest)
	cursors := map[uint32]*Cursor[item, Owner]{}
	for _, opened := range []uint32{1, 5, 9} {
		cursors[opened] = open(l)
	}
	for n := range 10 * maxEarlier {
		l.AppendAfter(Gap{Missed: 2, From: 3, Until: 7}, Gap{}, []item{{n: n}}).Wake(1)
		require.LessOrEqual(t, len(l.earlier.gaps), maxEarlier)
		require.LessOrEqual(t, cap(l.earlier.gaps), 2*maxEarlier)
	}
	require.Equal(t, Gap{Missed: 3 * 10 * maxEarlier}, cursors[1].ToEnd(1))
	for opened := range map[uint32]bool{5: true, 9: true} {
		g := cursors[opened].ToEnd(opened)
		require.True(t, g.Unknown)
		require.Positive(t, g.Missed)
		require.LessOrEqual(t, g.Missed, 10*maxEarlier)
	}
	for _, c := range cursors {
		require.True(t, c.Park())
	}
	require.Nil(t, l.earlier, "nobody lags")
}

func TestNumberOfMissedItemsDoesNotOverflow(t *testing.T) {
	l := newLog(4, 1<<20, Oldest)
	c := open(l)
	for range 40 {
		l.Append(Gap{Missed: math.MaxInt / 4}, nil).Wake(1)
	}
	for {
		_, _, gap := c.Peek()
		if !gap {
			break
		}
		require.Positive(t, c.TakeGap(0).Missed)
	}
}
