package presence

import (
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/stretchr/testify/require"
)

var start = time.Unix(1_700_000_000, 0)

func entry(number uint64, user, info string) control.Entry {
	return control.Entry{Number: number, Since: number, Count: 1, Name: []byte(user), Data: []byte(info)}
}

// wire carries announcements of hubs to followers without loss.
type wire struct {
	locals    map[uint64]*Local
	followers []*Follower
	notices   []int
	bytes     int
	frames    int
	now       time.Time
}

func (w *wire) flush() {
	for hub, l := range w.locals {
		a := l.Announce(w.now)
		if a == nil {
			continue
		}
		w.frames++
		w.bytes += len(a.Append(nil))
		l.Sent(true, w.now)
		for i, f := range w.followers {
			if f.Receive(hub, a, w.now).Change != nil {
				w.notices[i]++
			}
		}
		for i, f := range w.followers {
			w.locals[uint64(i+1)].See(f.Hubs(), f.Total())
		}
	}
}

func newWire(hubs int, p Params) *wire {
	w := &wire{locals: make(map[uint64]*Local), now: start, notices: make([]int, hubs)}
	for hub := range hubs {
		w.locals[uint64(hub+1)] = NewLocal(1, p)
		f := NewFollower()
		f.Settle()
		w.followers = append(w.followers, f)
	}
	return w
}

// 10,000 joins and leaves a second in a room of 300.
func TestLoad(t *testing.T) {
	for _, hubs := range []int{1, 3, 10, 30} {
		w := newWire(hubs, Params{Limit: 1000})
		next, oldest := uint64(1), uint64(1)
		const seconds = 5
		for range seconds * 1000 {
			for range 5 {
				w.locals[next%uint64(hubs)+1].Join(entry(next, "", "some info"))
				next++
				if next-oldest > 300 {
					w.locals[oldest%uint64(hubs)+1].Leave(oldest, w.now)
					oldest++
				}
			}
			w.flush()
			w.now = w.now.Add(time.Millisecond)
		}
		changes := float64(2 * next)
		t.Logf("%2d hubs: %.1f notices a second to each member, %.4f frames and %.1f bytes a change",
			hubs, float64(w.notices[0])/seconds, float64(w.frames)/changes, float64(w.bytes)/changes)
		require.Less(t, w.notices[0], 20*seconds+hubs, "and the first of each hub")
	}
}

func TestArrivals(t *testing.T) {
	t.Run("300 arrivals at once take a handful of notices", func(t *testing.T) {
		w := newWire(3, Params{Limit: 1000})
		for n := range uint64(300) {
			w.locals[n%3+1].Join(entry(n+1, fmt.Sprint(n), ""))
			if n%10 == 0 {
				w.flush()
				w.now = w.now.Add(time.Millisecond)
			}
		}
		for range 10 {
			w.now = w.now.Add(100 * time.Millisecond)
			w.flush()
		}
		require.Equal(t, 300, w.followers[0].Total())
		require.LessOrEqual(t, w.notices[0], 9)
	})
	t.Run("nothing is sent while nobody comes or goes", func(t *testing.T) {
		w := newWire(3, Params{Limit: 1000})
		w.locals[1].Join(entry(1, "", ""))
		w.flush()
		before := w.frames
		for range 1000 {
			w.now = w.now.Add(time.Second)
			w.flush()
		}
		require.Equal(t, before+1, w.frames, "which is the last one again")
		require.Equal(t, []int{1, 1, 1}, w.notices)
		require.Zero(t, w.locals[1].Next())
		require.Zero(t, w.followers[0].Next())
	})
	t.Run("a user that comes back on another hub is no event", func(t *testing.T) {
		w := newWire(3, Params{Grace: time.Second, Limit: 1000})
		w.locals[1].Join(entry(1, "ann", ""))
		w.flush()
		w.locals[1].Leave(1, w.now)
		w.now = w.now.Add(500 * time.Millisecond)
		w.locals[2].Join(entry(2, "ann", ""))
		for range 100 {
			w.flush()
			w.now = w.now.Add(100 * time.Millisecond)
		}
		require.Equal(t, []int{1, 1, 1}, w.notices)
		require.Len(t, w.followers[2].List().Joined, 1)
		for _, f := range w.followers {
			require.Equal(t, uint64(2), f.List().Joined[0].Since, "a list has the connection that is there now")
		}
	})
}

func TestFollower(t *testing.T) {
	follower := func() (*Local, *Follower) {
		l, f := NewLocal(1, Params{Limit: 1000}), NewFollower()
		l.Join(entry(1, "ann", "x"))
		l.Join(entry(2, "", ""))
		f.Receive(1, l.Announce(start), start)
		l.Sent(true, start)
		require.Equal(t, uint64(1), f.Settle().Change.Number)
		require.Nil(t, f.Settle().Change)
		return l, f
	}
	t.Run("a hub that died is one change", func(t *testing.T) {
		_, f := follower()
		c := f.Gone(1).Change
		require.Len(t, c.Left, 2)
		require.Zero(t, c.Count)
		require.Equal(t, uint64(2), f.Number())
		require.Nil(t, f.Gone(1).Change)
		require.Equal(t, Unknown, f.State(1))
	})
	t.Run("a hub that left is one change, after the grace period", func(t *testing.T) {
		l, f := follower()
		require.Nil(t, f.Left(1, start, time.Second).Change)
		require.Equal(t, Leaving, f.State(1))
		l.Leave(2, start)
		require.Equal(t, Step{}, f.Receive(1, l.Announce(start.Add(time.Second)), start), "it no longer counts")
		require.Equal(t, start.Add(time.Second), f.Next())
		require.Len(t, f.Tick(f.Next()).Change.Left, 2)
		require.Nil(t, f.Left(1, start, 0).Change)
	})
	t.Run("asks again until it is answered", func(t *testing.T) {
		l, f := follower()
		l.Join(entry(3, "", ""))
		missed := l.Announce(start.Add(time.Second))
		l.Sent(true, start)
		l.SetInfo(3, []byte("y"))
		s := f.Receive(1, l.Announce(start.Add(2*time.Second)), start)
		require.Equal(t, []Ask{{Hub: 1, Life: 1, Seq: 1, Digest: f.peers[1].digest}}, s.Ask)
		for _, delay := range []time.Duration{1, 2, 4, 8, 10, 10} {
			now := f.peers[1].until
			require.Len(t, f.Tick(now).Ask, 1)
			require.Equal(t, min(2*delay, 10)*time.Second, f.peers[1].until.Sub(now))
		}
		require.Nil(t, f.Receive(1, missed, start).Change, "it waits, too")
		a := l.Snapshot(&control.Question{})
		a.Digest++
		require.Equal(t, Stale, state(f, f.Snapshot(1, a, 0, start)), "it contradicts itself")
		a.Digest--
		require.Equal(t, Following, state(f, f.Snapshot(1, a, 0, start)))
		require.Equal(t, 3, f.Total())
		require.Equal(t, Step{}, f.Snapshot(1, a, 0, start), "nobody asked")
	})
	t.Run("does not accept a list that is older than the announcements", func(t *testing.T) {
		for _, known := range []bool{true, false} {
			l, f := follower()
			if !known {
				f.Gone(1)
			}
			old := l.Snapshot(&control.Question{})
			l.Join(entry(3, "", ""))
			l.Announce(start.Add(time.Second)) // is lost
			l.Sent(false, start.Add(time.Second))
			for range 3 { // is told the numbers
				again := l.Announce(l.Next())
				require.True(t, again.Again)
				require.Nil(t, f.Receive(1, again, start).Change)
				l.Sent(false, l.Next())
			}
			require.Len(t, f.peers[1].waiting, 1)
			require.Equal(t, Stale, state(f, f.Snapshot(1, old, 0, start)))
			require.Len(t, f.Tick(f.Next()).Ask, 1)
			require.Equal(t, Following, state(f, f.Snapshot(1, l.Snapshot(&control.Question{}), 0, start)))
			require.Equal(t, 3, f.Total())
		}
	})
	t.Run("asks a hub that is back until it is answered", func(t *testing.T) {
		l, f := follower()
		f.Gone(1)
		require.Equal(t, []Ask{{Hub: 1}}, f.Came(1, start).Ask)
		require.Equal(t, start.Add(time.Second), f.Next())
		require.Len(t, f.Tick(f.Next()).Ask, 1)
		require.Equal(t, Following, state(f, f.Snapshot(1, l.Snapshot(&control.Question{}), 0, start)))
		require.Equal(t, 2, f.Total())
		require.Zero(t, f.Next())
	})
	t.Run("a hub that begins anew", func(t *testing.T) {
		_, f := follower()
		again := NewLocal(2, Params{})
		again.Join(entry(9, "ann", "x"))
		c := f.Receive(1, again.Announce(start), start).Change
		require.Len(t, c.Left, 1, "and ann is there all the time")
		require.Empty(t, c.Joined)
		old := NewLocal(1, Params{})
		old.Join(entry(10, "", ""))
		require.Equal(t, Step{}, f.Receive(1, old.Announce(start), start))
	})
	t.Run("a doubt without a cause changes nothing", func(t *testing.T) {
		l, f := follower()
		ask := f.Doubt(start).Ask[0]
		a := l.Snapshot(&control.Question{Life: ask.Life, Seq: ask.Seq, Digest: ask.Digest})
		require.Equal(t, control.StatusSame, a.Status)
		f.Doubt(start)
		require.Equal(t, Stale, state(f, f.Snapshot(1, a, ask.Doubts, start)), "the answer is older than the last doubt")
		require.Equal(t, Step{}, f.Snapshot(1, a, f.Doubts(), start))
		require.Equal(t, Following, f.State(1))
		require.Equal(t, 1, f.Hubs())
	})
	t.Run("bounds", func(t *testing.T) {
		f := NewFollower()
		require.Equal(t, Step{}, f.Receive(1, &control.Announcement{Count: MaxMembers + 1}, start))
		for hub := range uint64(maxPeers + 10) {
			f.Receive(hub, &control.Announcement{Life: 1, Seq: 1, Mode: control.ModeList}, start)
		}
		require.Equal(t, Step{}, f.Came(maxPeers+1, start))
		require.Len(t, f.peers, maxPeers)
		for seq := range uint64(100) {
			f.Receive(1, &control.Announcement{Life: 1, Seq: seq + 10, Mode: control.ModeList}, start)
		}
		require.Len(t, f.peers[1].waiting, maxWaiting)
	})
}

func state(f *Follower, _ Step) State { return f.State(1) }

func TestLargeRooms(t *testing.T) {
	w := newWire(2, Params{Limit: 100})
	join := func(from, to uint64) {
		for n := from; n < to; n++ {
			w.locals[n%2+1].Join(entry(n, fmt.Sprint("user ", n), ""))
		}
	}
	settle := func() {
		for range 20 {
			w.now = w.now.Add(200 * time.Millisecond)
			w.flush()
			for _, f := range w.followers {
				for _, ask := range f.Tick(w.now).Ask {
					f.Snapshot(ask.Hub, w.locals[ask.Hub].Snapshot(&control.Question{}), ask.Doubts, w.now)
				}
			}
		}
	}
	join(1, 200)
	settle()
	list := w.followers[0].List()
	require.True(t, list.Large)
	require.Equal(t, 199, list.Count)
	require.Len(t, list.Joined, maxSample)
	require.Empty(t, w.followers[0].people)
	for n := uint64(1); n < 150; n++ {
		w.locals[n%2+1].Leave(n, w.now)
	}
	settle()
	list = w.followers[1].List()
	require.False(t, list.Large)
	require.Len(t, list.Joined, 50)
	require.Equal(t, list.Joined, w.followers[0].List().Joined)
}
