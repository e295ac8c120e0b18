package presence

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/stretchr/testify/require"
)

// The hash of a member is that of WIRE.md.
func TestSum(t *testing.T) {
	doc, err := os.ReadFile("../../WIRE.md")
	require.NoError(t, err)
	hash := sum(&control.Entry{Number: 46, Since: 1_700_000_000_000, Name: []byte("ann"), Data: []byte("info")})
	require.Contains(t, string(doc), fmt.Sprintf("    %016x\n", hash))
}

func TestLocal(t *testing.T) {
	params := Params{Grace: time.Second, Limit: 100}
	t.Run("announces at once when it was idle, and then gathers for a window", func(t *testing.T) {
		l := NewLocal(1, params)
		require.Nil(t, l.Announce(start))
		l.Join(entry(1, "", "a"))
		a := l.Announce(start)
		require.Equal(t, []uint64{1, 1, 1}, []uint64{a.Life, a.Seq, a.Count})
		l.Join(entry(2, "", "b"))
		require.Zero(t, l.Next(), "one is under way")
		l.Sent(true, start)
		require.Equal(t, start.Add(minWindow), l.Next())
		require.Nil(t, l.Announce(start.Add(minWindow-1)))
		l.Join(entry(3, "", "c"))
		l.Leave(2, start)
		l.Leave(9, start)
		l.SetInfo(1, []byte("z"))
		l.SetInfo(1, []byte("z"))
		a = l.Announce(start.Add(minWindow))
		require.Equal(t, []control.Entry{entry(3, "", "c"), entry(1, "", "z")}, a.Joined)
		require.Empty(t, a.Left, "the second came and went")
		l.Sent(true, start)
		l.Join(entry(4, "", "d"))
		l.Leave(4, start)
		require.Nil(t, l.Announce(start.Add(time.Minute)))
		require.False(t, l.Idle())
		l.Leave(1, start)
		l.Leave(3, start)
		require.Equal(t, []uint64{1, 3}, l.Announce(start.Add(time.Minute)).Left)
		l.Sent(true, start)
		require.False(t, l.Idle(), "that is to be repeated once")
		require.True(t, l.Announce(l.Next()).Again)
		l.Sent(true, start)
		require.True(t, l.Idle())
		require.Zero(t, l.digest)
	})
	t.Run("has a window for each hub", func(t *testing.T) {
		l := NewLocal(1, params)
		for hubs, want := range map[int]time.Duration{0: minWindow, 3: 180 * time.Millisecond, 1000: maxWindow} {
			l.See(hubs, 0)
			require.Equal(t, want, l.window())
		}
	})
	t.Run("lists nobody above the limit, until three quarters of it are left", func(t *testing.T) {
		for limit, again := range map[int]int{1: 1, 2: 1, 3: 2, 4: 3, 5: 3, 7: 5, 30: 22, 1000: 750} {
			l := NewLocal(1, Params{Limit: limit})
			for _, step := range []struct {
				total int
				want  control.Mode
			}{
				{limit, control.ModeList},
				{limit + 1, control.ModeSummary},
				{again + 1, control.ModeSummary},
				{again, control.ModeList},
				{limit, control.ModeList},
			} {
				l.See(1, step.total)
				require.Equal(t, step.want, l.mode, "%d connections, with a limit of %d", step.total, limit)
			}
		}
	})
	t.Run("holds a user whose connection has ended", func(t *testing.T) {
		l := NewLocal(1, params)
		l.Join(entry(1, "ann", ""))
		l.Announce(start)
		l.Sent(true, start)
		l.Leave(1, start)
		l.Leave(1, start)
		l.SetInfo(1, []byte("late"))
		require.Equal(t, start.Add(time.Second), l.Next())
		l.Join(entry(2, "ann", "")) // it is back
		a := l.Announce(start.Add(500 * time.Millisecond))
		require.Equal(t, []uint64{1}, a.Left)
		require.Len(t, a.Joined, 1)
		l.Sent(true, start)
		l.Join(entry(3, "ann", ""))
		l.Announce(start.Add(time.Second))
		l.Sent(true, start)
		l.Leave(2, start.Add(2*time.Second))
		require.Equal(t, []uint64{2}, l.Announce(start.Add(2*time.Second)).Left, "there is another connection")
		l.Sent(true, start)
		l.Leave(3, start.Add(3*time.Second))
		require.Nil(t, l.Announce(start.Add(3*time.Second)))
		require.Equal(t, []uint64{3}, l.Announce(start.Add(4*time.Second)).Left)
	})
	t.Run("holds no more users than are listed", func(t *testing.T) {
		l := NewLocal(1, Params{Grace: time.Hour, Limit: 2})
		for n := range uint64(4) {
			l.Join(entry(n+1, fmt.Sprint(n), ""))
		}
		l.Announce(start)
		l.Sent(true, start)
		for n := range uint64(4) {
			l.Leave(n+1, start)
		}
		require.Equal(t, []uint64{1, 2}, l.Announce(start.Add(time.Second)).Left)
	})
	t.Run("holds a user whose next connections end before they are announced", func(t *testing.T) {
		for name, first := range map[string]func(l *Local){
			"one after the other": func(l *Local) {
				l.Leave(1, start.Add(time.Second))
				l.Join(entry(2, "ann", ""))
			},
			"the second overlaps the first": func(l *Local) {
				l.Join(entry(2, "ann", ""))
				l.Leave(1, start.Add(time.Second))
			},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWire(1, Params{Grace: 5 * time.Second, Limit: 100})
				l := w.locals[1]
				at := func(d time.Duration) {
					w.now = start.Add(d)
					w.flush()
				}
				l.Join(entry(1, "ann", ""))
				at(0)
				l.Join(entry(9, "bob", ""))
				at(time.Second - time.Millisecond) // it begins a window
				first(l)
				l.Leave(2, start.Add(time.Second+50*time.Millisecond))
				at(2 * time.Second)
				l.Join(entry(3, "ann", ""))
				l.Leave(3, start.Add(2*time.Second))
				at(3 * time.Second)
				at(7*time.Second - time.Millisecond)
				require.Equal(t, []int{2}, w.notices, "ann and bob came, and that is all")
				require.Equal(t, 2, w.followers[0].Total())
				at(7 * time.Second)
				require.Equal(t, []int{3}, w.notices)
				at(time.Minute)
				l.Leave(9, start)
				at(2 * time.Minute)
				at(3 * time.Minute)
				require.Zero(t, w.followers[0].Total())
				require.True(t, l.Idle())
				require.Empty(t, l.users)
			})
		}
	})
	t.Run("forgets a user that was never announced", func(t *testing.T) {
		l := NewLocal(1, params)
		l.Join(entry(1, "ann", ""))
		l.Join(entry(2, "ann", ""))
		l.Leave(1, start)
		l.Leave(2, start)
		require.Nil(t, l.Announce(start))
		require.True(t, l.Idle())
		require.Empty(t, l.users)
	})
	t.Run("does not walk the connections of a user", func(t *testing.T) {
		const connections = 100_000
		l := NewLocal(1, Params{Grace: time.Second, Limit: 10})
		began := time.Now()
		each := func(do func(number uint64)) {
			for n := range uint64(connections) {
				do(n + 1)
				require.True(t, n%1000 > 0 || time.Since(began) < 20*time.Second, "that would take a minute if it did")
			}
			for at := start; ; at = at.Add(time.Minute) {
				if l.Announce(at) == nil && len(l.changed) == 0 {
					break
				}
				l.Sent(true, at)
			}
		}
		each(func(n uint64) { l.Join(entry(n, "guest", "")) })
		require.Equal(t, connections, l.count)
		each(func(n uint64) { l.Leave(n, start) })
		require.Zero(t, l.count)
		require.Empty(t, l.users)
	})
	t.Run("knows a member that joins again", func(t *testing.T) {
		l := NewLocal(1, params)
		f := NewFollower()
		f.Settle()
		announce := func(at time.Duration) (c *Change) {
			if a := l.Announce(start.Add(at)); a != nil {
				c = f.Receive(1, a, start).Change
				l.Sent(true, start.Add(at))
			}
			require.Equal(t, 1, f.Total())
			require.Equal(t, Following, f.State(1))
			return c
		}
		l.Join(entry(1, "ann", ""))
		require.NotNil(t, announce(0))
		for i := range 3 { // held again each time
			l.Leave(1, start.Add(time.Duration(i)*400*time.Millisecond))
			l.Join(entry(1, "ann", ""))
		}
		require.Nil(t, announce(900*time.Millisecond))
		l.Leave(1, start.Add(time.Second))
		require.Nil(t, announce(1900*time.Millisecond), "the last hold counts")
		l.Join(entry(1, "ann", "new"))
		require.Len(t, announce(2900*time.Millisecond).Updated, 1)
		l.Join(entry(2, "", ""))
		l.Leave(2, start)
		l.Join(entry(2, "", ""))
		l.Leave(2, start)
		require.Nil(t, announce(4*time.Second))
	})
	t.Run("repeats an announcement that it could not publish", func(t *testing.T) {
		l := NewLocal(1, params)
		l.Join(entry(1, "", ""))
		first := l.Announce(start)
		for _, delay := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
			l.Sent(false, start)
			require.Equal(t, start.Add(delay*time.Millisecond), l.Next())
			require.False(t, l.Idle())
			again := l.Announce(l.Next())
			require.True(t, again.Again)
			require.Equal(t, []uint64{first.Seq, first.Digest}, []uint64{again.Seq, again.Digest})
		}
		l.Sent(true, start)
		require.Zero(t, l.Next())
	})
	t.Run("repeats the last announcement once, and when it is asked to", func(t *testing.T) {
		l := NewLocal(1, params)
		l.Repeat(start)
		require.Zero(t, l.Next(), "there is none")
		l.Join(entry(1, "", ""))
		l.Announce(start)
		l.Sent(true, start)
		for _, delay := range []time.Duration{confirmAfter, firstAgain} {
			require.Equal(t, start.Add(delay), l.Next())
			a := l.Announce(l.Next())
			require.True(t, a.Again)
			require.Equal(t, uint64(1), a.Count)
			l.Sent(true, start)
			require.Zero(t, l.Next())
			l.Repeat(start)
		}
	})
	t.Run("splits changes that do not fit, and sends the rest at once", func(t *testing.T) {
		l := NewLocal(1, Params{Limit: 100_000})
		f := NewFollower()
		f.Settle()
		send := func(n int) (announcements int) {
			for !l.Next().IsZero() && !l.Next().After(start) {
				a := l.Announce(start)
				require.Less(t, len(a.Append(nil)), 64<<10)
				f.Receive(1, a, start)
				l.Sent(true, start)
				announcements++
			}
			require.Equal(t, n, f.Total())
			require.Equal(t, Following, f.State(1))
			l.last = time.Time{}
			return announcements
		}
		for n := range uint64(5000) {
			l.Join(entry(n+1, "", string(make([]byte, 100))))
		}
		require.LessOrEqual(t, send(5000), 13)
		for n := range uint64(5000) {
			l.Leave(n+1, start)
		}
		require.Equal(t, 3, send(0))
	})
	t.Run("announces 1,000 arrivals with 1 KB of info in some 20 announcements", func(t *testing.T) {
		l := NewLocal(1, Params{Limit: 1000})
		for n := range uint64(1000) {
			l.Join(entry(n+1, fmt.Sprint("user ", n), string(make([]byte, 1<<10))))
		}
		announcements := 0
		for l.count < 1000 {
			require.NotNil(t, l.Announce(start))
			l.Sent(true, start)
			announcements++
		}
		require.InDelta(t, 20, announcements, 2)
	})
}
