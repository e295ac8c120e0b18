package numbers

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const me, you = ID(1), ID(2)

func standing() *Tracker {
	t := New(3)
	t.Set(0, Opening)
	t.Set(0, Standing)
	return t
}

func frame(t *testing.T, tr *Tracker, id ID, n uint64, deliver, gap bool) {
	t.Helper()
	d, g := tr.Frame(0, id, n, start)
	require.Equal(t, deliver, d, "deliver")
	require.Equal(t, gap, g, "gap")
}

func gaps(tr *Tracker, now time.Time) (list []int) {
	tr.Tick(now, func(p int) { list = append(list, p) })
	slices.Sort(list)
	return list
}

func TestFrame(t *testing.T) {
	t.Run("frames that follow each other are no gap", func(t *testing.T) {
		tr := standing()
		frame(t, tr, me, 1, true, false)
		frame(t, tr, you, 1, true, false)
		frame(t, tr, me, 2, true, false)
	})
	t.Run("a number that is left out is a gap", func(t *testing.T) {
		tr := standing()
		frame(t, tr, me, 1, true, false)
		frame(t, tr, me, 3, true, true)
		frame(t, tr, me, 4, true, false)
	})
	t.Run("a frame that comes late, or again, is not delivered", func(t *testing.T) {
		tr := standing()
		frame(t, tr, me, 1, true, false)
		frame(t, tr, me, 3, true, true)
		frame(t, tr, me, 2, false, false)
		frame(t, tr, me, 3, false, false)
	})
	t.Run("a publisher that was not heard of, and begins later, is a gap", func(t *testing.T) {
		frame(t, standing(), me, 5, true, true)
	})
	t.Run("what is missing while the subscription is made is no gap", func(t *testing.T) {
		tr := New(1)
		tr.Set(0, Opening)
		frame(t, tr, me, 5, true, false)
		frame(t, tr, me, 9, true, false)
		tr.Set(0, Standing)
		frame(t, tr, me, 10, true, false)
	})
	t.Run("after an interruption numbers go on", func(t *testing.T) {
		tr := standing()
		frame(t, tr, me, 1, true, false)
		tr.Set(0, Opening)
		tr.Set(0, Standing)
		frame(t, tr, me, 1, false, false)
		frame(t, tr, me, 5, true, true)
	})
	t.Run("off forgets", func(t *testing.T) {
		tr := standing()
		frame(t, tr, me, 7, true, true)
		tr.Set(0, Off)
		tr.Set(0, Opening)
		frame(t, tr, me, 3, true, false)
		require.Equal(t, Opening, tr.State(0))
	})
}

func TestMark(t *testing.T) {
	t.Run("tells that the last frames are missing, once", func(t *testing.T) {
		tr := standing()
		frame(t, tr, me, 1, true, false)
		require.False(t, tr.Mark(0, me, 1, start))
		require.True(t, tr.Mark(0, me, 3, start))
		require.False(t, tr.Mark(0, me, 3, start))
		frame(t, tr, me, 3, false, false)
		frame(t, tr, me, 4, true, false)
	})
	t.Run("of a publisher that has sent nothing says so", func(t *testing.T) {
		tr := standing()
		require.False(t, tr.Mark(0, me, 0, start))
		frame(t, tr, me, 1, true, false)
		require.True(t, tr.Mark(0, you, 1, start), "it was never heard of, and has sent one")
	})
	t.Run("is where a subscription begins", func(t *testing.T) {
		tr := New(1)
		require.False(t, tr.Mark(0, me, 2, start), "off")
		tr.Set(0, Opening)
		require.False(t, tr.Mark(0, me, 8, start))
		tr.Set(0, Standing)
		frame(t, tr, me, 9, true, false)
	})
}

func TestPeers(t *testing.T) {
	t.Run("one that dies may have sent what did not come", func(t *testing.T) {
		tr := standing()
		frame(t, tr, me, 1, true, false)
		tr.Mark(0, you, 0, start)
		require.Empty(t, gaps(tr, start.Add(DeadAfter-1)))
		tr.Heard(you, start.Add(DeadAfter-1))
		require.Equal(t, []int{0}, gaps(tr, start.Add(DeadAfter)))
		var alive []ID
		tr.Peers(func(id ID) { alive = append(alive, id) })
		require.Equal(t, []ID{you}, alive)
		require.Empty(t, gaps(tr, start.Add(3*DeadAfter)), "it had sent nothing")
	})
	t.Run("after an outage they get their time again", func(t *testing.T) {
		tr := standing()
		frame(t, tr, me, 1, true, false)
		tr.Resume(start.Add(2 * DeadAfter))
		require.Empty(t, gaps(tr, start.Add(3*DeadAfter-1)))
		require.Equal(t, []int{0}, gaps(tr, start.Add(3*DeadAfter)))
	})
	t.Run("one that says goodbye has told all", func(t *testing.T) {
		tr := standing()
		frame(t, tr, me, 1, true, false)
		tr.Bye(me)
		require.Empty(t, gaps(tr, start.Add(2*DeadAfter)))
	})
}

func TestKept(t *testing.T) {
	t.Run("a stream that begins later than with 1 is a gap", func(t *testing.T) {
		tr := standing()
		require.True(t, tr.Kept(0, 17))
		require.False(t, tr.Kept(0, 18))
		require.True(t, tr.Kept(0, 20))
		require.True(t, tr.Kept(0, 3), "another stream")
		require.False(t, tr.Kept(0, 4))
	})
	t.Run("what others have seen and does not come is a gap", func(t *testing.T) {
		tr := standing()
		tr.Kept(0, 17)
		tr.Claim(0, 17, start)
		tr.Claim(0, 18, start)
		require.Empty(t, gaps(tr, start.Add(claimGrace-1)))
		require.Equal(t, []int{0}, gaps(tr, start.Add(claimGrace)))
		require.Empty(t, gaps(tr, start.Add(2*claimGrace)))
		require.False(t, tr.Kept(0, 19), "18 was reported")
		require.True(t, tr.Kept(0, 21))
	})
	t.Run("one that comes in time is no gap", func(t *testing.T) {
		tr := standing()
		tr.Kept(0, 17)
		tr.Claim(0, 18, start)
		require.False(t, tr.Kept(0, 18))
		require.Empty(t, gaps(tr, start.Add(2*claimGrace)))
	})
	t.Run("what was there before is not missed", func(t *testing.T) {
		tr := New(1)
		tr.Claim(0, 5, start)
		tr.Set(0, Opening)
		tr.Claim(0, 17, start)
		tr.Claim(0, 18, start)
		tr.Set(0, Standing)
		require.False(t, tr.Kept(0, 19))
	})
	t.Run("of a stream that nothing was known of", func(t *testing.T) {
		tr := standing()
		tr.Claim(0, 18, start)
		require.Equal(t, []int{0}, gaps(tr, start.Add(claimGrace)))
		require.False(t, tr.Kept(0, 19))
	})
}
