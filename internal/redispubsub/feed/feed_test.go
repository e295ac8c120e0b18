package feed

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	start = time.Unix(1000, 0)
	view  = View{Primary: "a:1", Since: 7}
)

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

// fed returns a feed that is known to work. Its first probe was sent at 10 ms,
// and its last view is of 30 ms.
func fed(t *testing.T) *Feed {
	t.Helper()
	f := new(Feed)
	require.NoError(t, f.Viewed(view, at(0)))
	n := f.Probe(at(10))
	f.Accepted(n)
	hear(t, f, n)
	require.NoError(t, f.Viewed(view, at(30)))
	require.Equal(t, Fed, f.State())
	return f
}

// hear has a feed hear a probe that it knows.
func hear(t *testing.T, f *Feed, n uint64) {
	t.Helper()
	known, err := f.Heard(n)
	require.NoError(t, err)
	require.True(t, known)
}

func TestFeed(t *testing.T) {
	t.Run("works after a probe between two equal views", func(t *testing.T) {
		var f Feed
		require.Equal(t, Unknown, f.State())
		require.NoError(t, f.Viewed(view, at(0)))
		require.Equal(t, Connected, f.State())
		require.NoError(t, f.Viewed(view, at(1)))
		require.Equal(t, Connected, f.State(), "no probe came")
		hear(t, &f, f.Probe(at(2)))
		require.Equal(t, Answered, f.State())
		require.NoError(t, f.Viewed(view, at(3)))
		require.Equal(t, Fed, f.State())
		require.Equal(t, "Fed", f.State().String())
	})
	t.Run("is not proven by a probe before the first view", func(t *testing.T) {
		var f Feed
		hear(t, &f, f.Probe(at(0)))
		require.NoError(t, f.Viewed(view, at(1)))
		require.NoError(t, f.Viewed(view, at(2)))
		require.Equal(t, Connected, f.State())
	})
	for _, test := range []struct {
		name string
		view View
		want error
	}{
		{"ends when the replica is a primary", View{}, ErrNoReplica},
		{"ends when the primary's connection is gone", View{Primary: "a:1"}, ErrNoBus},
		{"ends when the primary has connected again", View{Primary: "a:1", Since: 8}, ErrChanged},
		{"ends when the replica has another primary", View{Primary: "b:1", Since: 7}, ErrChanged},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.ErrorIs(t, fed(t).Viewed(test.view, at(40)), test.want)
		})
	}
	t.Run("ends when a probe that was accepted is left out", func(t *testing.T) {
		f := fed(t)
		lost, next := f.Probe(at(40)), f.Probe(at(50))
		f.Accepted(lost)
		known, err := f.Heard(next)
		require.ErrorIs(t, err, ErrLost)
		require.False(t, known)
	})
	t.Run("goes on when a probe that was not accepted is left out", func(t *testing.T) {
		f := fed(t)
		f.Probe(at(40))
		hear(t, f, f.Probe(at(50)))
	})
	t.Run("goes on when the channel of probes changes", func(t *testing.T) {
		f := fed(t)
		old := f.Probe(at(40))
		f.Accepted(old)
		f.Forget()
		hear(t, f, f.Probe(at(50)))
		known, err := f.Heard(old)
		require.NoError(t, err)
		require.False(t, known, "a straggler")
	})
	t.Run("is late when the last probe that was heard is old", func(t *testing.T) {
		f := fed(t)
		require.NoError(t, f.Check(at(110), 100*time.Millisecond))
		require.NoError(t, f.Viewed(view, at(111)))
		require.ErrorIs(t, f.Check(at(111), 100*time.Millisecond), ErrLate)
	})
	t.Run("is late when probes arrive late", func(t *testing.T) {
		f := fed(t)
		n := f.Probe(at(40))
		require.NoError(t, f.Viewed(view, at(200)))
		hear(t, f, n)
		require.NoError(t, f.Check(at(140), 100*time.Millisecond))
		require.ErrorIs(t, f.Check(at(141), 100*time.Millisecond), ErrLate)
	})
	t.Run("is late when the last view is old", func(t *testing.T) {
		f := fed(t)
		hear(t, f, f.Probe(at(100)))
		require.ErrorIs(t, f.Check(at(131), 100*time.Millisecond), ErrLate)
	})
	t.Run("is not late before anything is known", func(t *testing.T) {
		require.NoError(t, new(Feed).Check(at(1e6), time.Millisecond))
	})
}
