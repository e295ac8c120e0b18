package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// An account is what a member received until nothing more came.
type account struct {
	got     []string
	missed  int
	unknown int // gaps that were
}

// accountOf receives what is there for a member, in a bubble.
func accountOf(t testing.TB, m *fanout.Member) (a account) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		msg, err := m.Receive(ctx)
		cancel()
		var gap *fanout.GapError
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return a
		case errors.As(err, &gap) && gap.Room == "":
		case errors.As(err, &gap):
			require.GreaterOrEqual(t, gap.Missed, 0)
			a.missed += gap.Missed
			if gap.Unknown {
				a.unknown++
			}
		default:
			require.NoError(t, err)
			a.got = append(a.got, string(msg.Data))
		}
	}
}

// publishTogether publishes numbers from first to last without waiting, so that
// all but the first travel in one frame.
func publishTogether(t testing.TB, r *fanout.Room, first, last int) {
	t.Helper()
	done := make(chan error, last-first+1)
	for n := first; n <= last; n++ {
		require.NoError(t, r.PublishAsync(within(t), fmt.Append(nil, n), func(err error) { done <- err }))
	}
	for range last - first + 1 {
		require.NoError(t, <-done)
	}
}

// When a history is lost, missing messages are still counted: those that were
// trimmed from the new history, and those of the old one that were lost.
func TestLostHistoryIsCounted(t *testing.T) {
	const keep = 10
	for name, test := range map[string]struct {
		before, after int // published while the link is cut, before and after the history is lost
		together      bool
		lose          func(*memory.Bus)
	}{
		"a frame over the bound":            {after: 31, together: true, lose: (*memory.Bus).Flush},
		"a frame over the bound and a loss": {before: 7, after: 31, together: true, lose: (*memory.Bus).Flush},
		"single messages":                   {after: 31, lose: (*memory.Bus).Flush},
		"single messages and a loss":        {before: 7, after: 31, lose: (*memory.Bus).Flush},
		"all is kept":                       {before: 7, after: 5, lose: (*memory.Bus).Flush},
		"lost, and another server": {before: 7, after: 31, together: true, lose: func(b *memory.Bus) {
			b.Flush()
			defer b.Failover(0, false)
		}},
		"a part is lost":          {before: 7, after: 31, together: true, lose: func(b *memory.Bus) { b.Failover(3, false) }},
		"a part is lost, singles": {before: 7, after: 31, lose: func(b *memory.Bus) { b.Failover(3, false) }},
		"more than we missed":     {before: 2, after: 31, together: true, lose: func(b *memory.Bus) { b.Failover(4, false) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				node := bus.NewAdapter()
				a, b := newHub(t, bus, keeping(keep)), newHubOn(t, node, keeping(keep))
				m := connect(t, b, "x")
				room := a.Room("x")
				publish(t, room, 1, 6)
				require.Equal(t, numbers(1, 6), receive(t, m, 6))
				node.CutSubscriber()
				publish(t, room, 101, 100+test.before)
				test.lose(bus)
				if test.together {
					publishTogether(t, room, 201, 200+test.after)
				} else {
					publish(t, room, 201, 200+test.after)
				}
				node.Heal()
				synctest.Wait()
				publish(t, room, 301, 301) // the publisher is heard again
				got := accountOf(t, m)
				require.Positive(t, got.unknown)
				require.Equal(t, test.before+test.after+1, len(got.got)+got.missed, "%v", got)

				// Members that come now are not told of it, and members that stay not
				// twice.
				newcomer := connect(t, b, "x")
				publish(t, room, 302, 302)
				require.Equal(t, account{got: []string{"302"}}, accountOf(t, m))
				require.Equal(t, account{got: []string{"302"}}, accountOf(t, newcomer))
			})
		})
	}
}

// The same with several publishers, one of which speaks for the first time.
func TestLostHistoryOfSeveralPublishersIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a, b, c := newHub(t, bus, keeping(10)), newHubOn(t, node, keeping(10)), newHub(t, bus, keeping(10))
		other := newHub(t, bus, keeping(10))
		m := connect(t, b, "x")
		publish(t, a.Room("x"), 1, 3)
		publish(t, c.Room("x"), 4, 6)
		require.Equal(t, numbers(1, 6), receive(t, m, 6))
		node.CutSubscriber()
		bus.Flush()
		publishTogether(t, a.Room("x"), 201, 220)
		publishTogether(t, other.Room("x"), 201, 220)
		publishTogether(t, c.Room("x"), 201, 220)
		node.Heal()
		synctest.Wait()
		for _, h := range []*fanout.Hub{a, c, other} {
			publish(t, h.Room("x"), 301, 301)
		}
		got := accountOf(t, m)
		require.Equal(t, 60+3, len(got.got)+got.missed, "%v", got)
	})
}

// A member that resumes across such a takeover is told how many messages the
// new history no longer has. What the old one lost stays unknown.
func TestResumeThroughALostHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, stays := range []bool{false, true} {
			bus := memory.NewBus()
			a, b := newHub(t, bus, keeping(10)), newHub(t, bus, keeping(10))
			if stays {
				connect(t, b, "x") // so that the hub follows the room all the time
			}
			publish(t, a.Room("x"), 1, 6)
			at := position(t, a.Room("x"))
			bus.Flush()
			publishTogether(t, a.Room("x"), 201, 231)
			synctest.Wait()
			m := connect(t, b)
			require.NoError(t, b.Room("x").Resume(within(t), m, at))
			publish(t, a.Room("x"), 301, 301)
			got := accountOf(t, m)
			require.Equal(t, 32, len(got.got)+got.missed, "%v", got)
			require.Equal(t, 1, got.unknown)
			_, err := b.Room("x").History(within(t), at, 0)
			require.Equal(t, &fanout.GapError{Room: "x", Missed: 22, Unknown: true}, err)
		}
	})
}

// A member that joins after an interruption is not told of what was missed
// before.
func TestJoinAfterAnInterruption(t *testing.T) {
	plain := func() *fanout.Options { return &fanout.Options{Window: fanout.Window{Messages: 8}} }
	kept := func() *fanout.Options {
		o := keeping(10)
		o.Window = fanout.Window{Messages: 8}
		return o
	}
	for name, options := range map[string]func() *fanout.Options{"plain": plain, "kept": kept} {
		for _, lags := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lagging %v", name, lags), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { joinAroundInterruptions(t, options(), lags) })
			})
		}
	}
}

func joinAroundInterruptions(t *testing.T, o *fanout.Options, lags bool) {
	bus := memory.NewBus()
	node := bus.NewAdapter()
	a, c, b := newHub(t, bus, o), newHub(t, bus, o), newHubOn(t, node, o)
	told := map[*fanout.Member]*account{}
	join := func() *fanout.Member {
		m := connect(t, b, "x")
		told[m] = new(account)
		return m
	}
	read := func() {
		if lags {
			return
		}
		for m, sum := range told {
			got := accountOf(t, m)
			sum.got = append(sum.got, got.got...)
			sum.missed += got.missed
			sum.unknown += got.unknown
		}
	}
	total := 0
	say := func(h *fanout.Hub, n int) {
		publish(t, h.Room("x"), 1, n)
		total += n
		synctest.Wait()
	}
	interrupt := func(lost func()) {
		node.CutSubscriber()
		lost()
		bus.Flush() // a history is lost as well
		node.Heal()
		synctest.Wait()
	}
	first := join()
	say(a, 3)
	say(c, 2)
	read()
	interrupt(func() { say(a, 30); say(c, 7) })
	second := join()
	from := total
	say(a, 1)
	say(c, 1)
	read()
	interrupt(func() { say(a, 20); say(c, 5) })
	third := join()
	afterThird := total
	say(a, 1)
	say(c, 1)
	say(a, 40) // out of the window
	lags = false
	read()
	for m, n := range map[*fanout.Member]int{first: total, second: total - from, third: total - afterThird} {
		require.Equal(t, n, len(told[m].got)+told[m].missed, "%v", *told[m])
	}
	require.Zero(t, told[third].unknown)
}

// A member that joins between two interruptions, without a message of the
// publisher between them, is told that the number is not known.
func TestJoinBetweenInterruptions(t *testing.T) {
	for _, lags := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			node := bus.NewAdapter()
			o := &fanout.Options{Window: fanout.Window{Messages: 4}}
			a, b := newHub(t, bus, o), newHubOn(t, node, o)
			first := connect(t, b, "x")
			publish(t, a.Room("x"), 1, 1)
			require.Equal(t, numbers(1, 1), receive(t, first, 1))
			lose := func(n int) {
				node.CutSubscriber()
				publish(t, a.Room("x"), 1, n)
				node.Heal()
				synctest.Wait()
			}
			lose(30)
			between := connect(t, b, "x")
			lose(5)
			last := connect(t, b, "x")
			publish(t, a.Room("x"), 2, 2)
			n := 1
			if lags {
				publish(t, a.Room("x"), 3, 22)
				n += 20
			}
			synctest.Wait()
			got := accountOf(t, first)
			require.Equal(t, 35+n, len(got.got)+got.missed)
			got = accountOf(t, between)
			require.Equal(t, n, len(got.got)+got.missed)
			require.Positive(t, got.unknown)
			got = accountOf(t, last)
			require.Equal(t, n, len(got.got)+got.missed)
			require.Zero(t, got.unknown)
		})
	}
}

// Frames that waited for a reading, and were trimmed from the history by then,
// are missing. Later messages are not.
func TestWhatWaitedForAReadingIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a, b := newHub(t, bus, keeping(30)), newHubOn(t, node, keeping(30))
		m := connect(t, b, "x")
		goes := make(chan struct{})
		bus.InterceptReads(func(context.Context, string, adapter.Query) error { <-goes; return nil })
		node.Move()
		publish(t, a.Room("x"), 1, 200)
		synctest.Wait()
		close(goes)
		told := accountOf(t, m)
		require.Equal(t, numbers(171, 200), told.got)
		require.Equal(t, 170, told.missed)
	})
}

// Messages that were under way when a hub subscribed are not missing for
// members that join there.
func TestFramesOnTheirWayWhenAHubComes(t *testing.T) {
	bus := memory.NewBus()
	a := newHub(t, bus, keeping(1000))
	for round := range 200 {
		func() {
			room := a.Room(fmt.Sprint("x", round))
			b := newHub(t, bus, keeping(1000))
			done := make(chan struct{})
			go func() {
				defer close(done)
				for n := range 40 {
					_ = room.Publish(context.Background(), fmt.Append(nil, n))
				}
			}()
			m := connect(t, b, room.Name())
			<-done
			_ = room.Publish(context.Background(), []byte("end"))
			for {
				msg, err := m.Receive(within(t))
				require.NoError(t, err, "round %d", round)
				if string(msg.Data) == "end" {
					break
				}
			}
			require.NoError(t, b.Close(context.Background()))
		}()
	}
}

// A member that came before the room had a history, and falls out of the
// window, is told what was trimmed before it gets the rest.
func TestGapOfAMemberThatCameBeforeTheHistory(t *testing.T) {
	for _, c := range []struct{ keep, window, published int }{
		{100, 256, 300}, {126, 79, 300}, {100, 0, 1000}, {10, 20, 25}, {40, 50, 60}, {3, 4, 5}, {1000, 20, 100},
	} {
		t.Run(fmt.Sprintf("%d kept, a window of %d, %d published", c.keep, c.window, c.published), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, memory.NewBus(), &fanout.Options{Room: func(string) fanout.RoomOptions {
					return fanout.RoomOptions{
						Retain: fanout.Retention{Messages: c.keep},
						Window: fanout.Window{Messages: c.window},
					}
				}})
				m := connect(t, h, "x")
				publish(t, h.Room("x"), 1, c.published)
				next := 1
				for next <= c.published {
					msg, err := m.Receive(t.Context())
					var gap *fanout.GapError
					if errors.As(err, &gap) {
						require.False(t, gap.Unknown)
						next += gap.Missed
						continue
					}
					require.NoError(t, err)
					require.Equal(t, numbers(next, next)[0], string(msg.Data))
					next++
				}
			})
		})
	}
}

// A member that is told what it missed, and then falls out of the window, gets
// from the history only what came after that.
func TestGapIsToldOnceBeforeTheWindowIsLeft(t *testing.T) {
	for name, reads := range map[string]int{"the gap is read before": 1, "the gap is read after": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				node := bus.NewAdapter()
				o := keeping(10)
				o.Room = func(string) fanout.RoomOptions {
					return fanout.RoomOptions{Retain: fanout.Retention{Messages: 10, Age: time.Minute}}
				}
				o.Window = fanout.Window{Messages: 4}
				a, b := newHub(t, bus, o), newHubOn(t, node, o)
				m := connect(t, b, "x")
				publish(t, a.Room("x"), 1, 3)
				require.Equal(t, numbers(1, 3), receive(t, m, 3))
				node.CutSubscriber()
				publish(t, a.Room("x"), 4, 8)
				time.Sleep(2 * time.Minute) // all of it is trimmed
				node.Heal()
				time.Sleep(3 * time.Second)
				var got account
				for range reads {
					var gap *fanout.GapError
					_, err := m.Receive(t.Context())
					require.ErrorAs(t, err, &gap)
					got.missed += gap.Missed
				}
				publish(t, a.Room("x"), 9, 40)
				rest := accountOf(t, m)
				require.Zero(t, rest.unknown)
				require.Equal(t, numbers(31, 40), rest.got[len(rest.got)-10:])
				require.Equal(t, 40-3, len(rest.got)+got.missed+rest.missed)
			})
		})
	}
}
