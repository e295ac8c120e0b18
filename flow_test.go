package fanout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// While a room's history is read for members that come back, more messages than
// its window are published.
func TestResumeInABusyRoomWithATinyWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		o := keeping(100_000)
		o.Window.Messages = 8
		door := &backdoor{Adapter: bus.NewAdapter()}
		a, b := newHub(t, bus, o), newHubOn(t, door, o)
		publish(t, a.Room("x"), 1, 100)
		at := position(t, a.Room("x"))
		publish(t, a.Room("x"), 101, 200)
		said := 200
		connect(t, b, "x")
		var reads atomic.Int32
		door.page = func(p adapter.Page) adapter.Page {
			if reads.Add(1) < 1000 {
				publish(t, a.Room("x"), said+1, said+100)
				said += 100
			}
			time.Sleep(time.Millisecond) // until all of that is in the log
			return p
		}
		var resumed sync.WaitGroup
		members := make([]*fanout.Member, 8)
		for i := range members {
			members[i] = connect(t, b)
			resumed.Go(func() {
				if err := b.Room("x").Resume(within(t), members[i], at); err != nil {
					t.Error(err)
				}
			})
		}
		resumed.Wait()
		for _, m := range members {
			require.Equal(t, numbers(101, 300), receive(t, m, 200))
		}
		require.LessOrEqual(t, reads.Load(), int32(2), "they meet what came meanwhile without asking again")
		publish(t, a.Room("x"), said+1, said+1)
		for _, m := range members {
			require.Equal(t, numbers(301, said+1), receive(t, m, said-299))
		}
	})
}

// A backdoor is an adapter through which a test speaks to the hub, and for it.
type backdoor struct {
	*memory.Adapter
	receiver adapter.HistoryReceiver
	page     func(adapter.Page) adapter.Page // what becomes of those that are read
}

func (b *backdoor) Attach(r fanout.Receiver) error {
	b.receiver = r.(adapter.HistoryReceiver)
	return b.Adapter.Attach(r)
}

func (b *backdoor) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	p, err := b.Adapter.History(ctx, channel, q)
	if b.page != nil && q.Limit > 0 && err == nil {
		p = b.page(p)
	}
	return p, err
}

// kept delivers a frame at a position that the test chooses.
func (b *backdoor) kept(room string, epoch, offset uint64, text string) {
	b.receiver.ReceiveKept("fanout:r:{"+room+"}", adapter.KeptFrame{
		At: adapter.Position{Epoch: epoch, Offset: offset}, Frame: []byte(text),
	})
}

// private is an epoch as the backend sees it.
func private(p fanout.Position) uint64 { return p.Epoch >> 20 }

func TestAFrameThatTheHistoryDoesNotHave(t *testing.T) {
	// begin returns a hub on which a member has received 1 to 3.
	begin := func(t *testing.T) (*memory.Bus, *backdoor, *fanout.Hub, *fanout.Member, fanout.Position) {
		bus := memory.NewBus()
		door := &backdoor{Adapter: bus.NewAdapter()}
		h := newHubOn(t, door, keeping(1000))
		m := connect(t, h, "x")
		publish(t, h.Room("x"), 1, 3)
		require.Equal(t, numbers(1, 3), receive(t, m, 3))
		return bus, door, h, m, position(t, h.Room("x"))
	}
	t.Run("is delivered after a gap, and costs few readings", func(t *testing.T) {
		for name, at := range map[string]struct{ epochs, offset uint64 }{
			"far ahead": {0, 1000}, "next but one": {0, 5}, "a later epoch": {7, 4}, "its first": {7, 1}, "a very late one": {1 << 34, 1},
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, door, h, m, pos := begin(t)
					before := h.Stats().Reads
					door.kept("x", private(pos)+at.epochs, at.offset, "forged")
					begun := time.Now()
					require.Equal(t, []string{"gap 0+", "forged"}, receive(t, m, 2))
					require.Less(t, time.Since(begun), 4*time.Second)
					require.LessOrEqual(t, h.Stats().Reads-before, uint64(8))
					before = h.Stats().Reads
					time.Sleep(10 * time.Minute)
					require.Equal(t, before, h.Stats().Reads, "none while idle")
					publish(t, h.Room("x"), 4, 6)
					require.Equal(t, numbers(4, 6), receive(t, m, 3), "the room goes on")
					connect(t, h, "x")
				})
			})
		}
	})
	t.Run("holds up neither later messages nor members that come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, door, h, m, pos := begin(t)
			begun := time.Now()
			door.kept("x", private(pos), 1000, "forged")
			publish(t, h.Room("x"), 4, 6)
			time.Sleep(20 * time.Millisecond)
			require.Equal(t, numbers(4, 6), receive(t, m, 3))
			newcomer := connect(t, h, "x")
			require.Less(t, time.Since(begun), 100*time.Millisecond)
			publish(t, h.Room("x"), 7, 7)
			require.Equal(t, numbers(7, 7), receive(t, newcomer, 1))
			require.Equal(t, []string{"7", "gap 0+", "forged"}, receive(t, m, 3))
		})
	})
	t.Run("costs few readings when there are many", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, door, h, m, pos := begin(t)
			before, said := h.Stats().Reads, 3
			for n := range 10_000 { // ten seconds
				door.kept("x", private(pos)+9, uint64(n+10), "forged")
				time.Sleep(time.Millisecond)
				if n%1000 == 0 {
					said++
					publish(t, h.Room("x"), said, said)
					connect(t, h, "x")
				}
			}
			require.LessOrEqual(t, h.Stats().Reads-before, uint64(60))
			var got []string
			for len(got) < said-3 {
				if one := receive(t, m, 1)[0]; one != "forged" && !strings.HasPrefix(one, "gap") {
					got = append(got, one)
				}
			}
			require.Equal(t, numbers(4, said), got)
		})
	})
	t.Run("in 150 rooms holds up no other room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			door := &backdoor{Adapter: bus.NewAdapter()}
			h := newHubOn(t, door, keeping(1000))
			bus.InterceptReads(func(context.Context, string, adapter.Query) error {
				time.Sleep(time.Millisecond)
				return nil
			})
			for n := range 150 {
				room := fmt.Sprint("bad ", n)
				connect(t, h, room)
				door.kept(room, 1<<40, 17, "forged")
			}
			for n := range 100 {
				begun := time.Now()
				connect(t, h, fmt.Sprint("innocent ", n))
				require.Less(t, time.Since(begun), 10*time.Millisecond)
			}
		})
	})
	t.Run("because it was flushed while the hub caught up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus, door, h, m, _ := begin(t)
			other := newHub(t, bus, keeping(1000))
			door.CutSubscriber()
			publish(t, other.Room("x"), 4, 6)
			gate, flushed := make(chan struct{}), false
			bus.InterceptReads(func(context.Context, string, adapter.Query) error {
				if !flushed {
					<-gate
				}
				return nil
			})
			door.Heal()
			publish(t, other.Room("x"), 7, 8) // it waits for the reading
			synctest.Wait()
			bus.Flush()
			flushed = true
			close(gate)
			require.Equal(t, []string{"gap 0+", "gap 0+", "7", "8"}, receive(t, m, 4))
			reads := h.Stats().Reads
			time.Sleep(time.Minute)
			require.Equal(t, reads, h.Stats().Reads)
			publish(t, other.Room("x"), 9, 10)
			require.Equal(t, numbers(9, 10), receive(t, m, 2))
			require.LessOrEqual(t, h.Stats().Reads, uint64(12))
		})
	})
}

func TestAHistoryThatAnnouncesMoreWithoutFrames(t *testing.T) {
	again := adapter.KeptFrame{At: adapter.Position{Epoch: 1, Offset: 1}, Frame: []byte("again")}
	for name, frames := range map[string][]adapter.KeptFrame{"no frames": nil, "a frame from before": {again}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				door := &backdoor{Adapter: bus.NewAdapter()}
				h, other := newHubOn(t, door, keeping(1000)), newHub(t, bus, keeping(1000))
				m := connect(t, h, "x")
				publish(t, other.Room("x"), 1, 3)
				at := position(t, other.Room("x"))
				require.Equal(t, numbers(1, 3), receive(t, m, 3))

				door.page = func(p adapter.Page) adapter.Page {
					p.Frames, p.More = frames, true
					return p
				}
				before, begun := h.Stats().Reads, time.Now()
				door.CutSubscriber()
				publish(t, other.Room("x"), 4, 6)
				door.Heal()
				require.Equal(t, []string{"gap 0+"}, receive(t, m, 1))
				require.Less(t, time.Since(begun), 4*time.Second)
				publish(t, other.Room("x"), 7, 7)
				require.Equal(t, []string{"gap 3", "7"}, receive(t, m, 2), "the room lives on, and the number follows")

				require.Error(t, h.Room("x").Resume(within(t), connect(t, h), at))
				_, err := h.Room("x").History(within(t), at, 0)
				require.Error(t, err)
				require.LessOrEqual(t, h.Stats().Reads-before, 5+5*uint64(time.Since(begun)/time.Second))
				idle := h.Stats().Reads
				time.Sleep(10 * time.Minute)
				require.Equal(t, idle, h.Stats().Reads, "none while idle")

				door.page = nil // it is mended
				resumes := connect(t, h)
				require.NoError(t, h.Room("x").Resume(within(t), resumes, at))
				require.Equal(t, numbers(4, 7), receive(t, resumes, 4))
			})
		})
	}
}

// Servers that do not answer do not delay readings from servers that do.
func TestReadingsOfASilentServerHoldUpNoOthers(t *testing.T) {
	for _, rooms := range []int{400, 3000} {
		t.Run(fmt.Sprint(rooms, " rooms"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				other, h := newHub(t, bus, keeping(100)), newHub(t, bus, keeping(100))
				publish(t, other.Room("up"), 1, 3)
				var under, most atomic.Int32
				bus.InterceptReads(func(ctx context.Context, channel string, _ adapter.Query) error {
					if !strings.Contains(channel, "down") {
						time.Sleep(time.Millisecond)
						return nil
					}
					if n := under.Add(1); n > most.Load() {
						most.Store(n)
					}
					defer under.Add(-1)
					select {
					case <-ctx.Done():
						return context.Cause(ctx)
					case <-time.After(10 * time.Second):
						return errors.New("timeout")
					}
				})
				ctx, giveUp := context.WithCancel(t.Context())
				var resuming sync.WaitGroup
				for n := range rooms {
					m := connect(t, h)
					resuming.Go(func() { _ = h.Room(fmt.Sprint("down ", n)).Resume(ctx, m, fanout.Position{}) })
				}
				synctest.Wait()
				for n := range 60 { // a minute
					begun := time.Now()
					m := connect(t, h)
					require.NoError(t, h.Room("up").Resume(within(t), m, fanout.Position{}))
					require.Equal(t, numbers(1, 3), receive(t, m, 3))
					if n > 0 { // then those that are slow are known
						require.Less(t, time.Since(begun), 50*time.Millisecond, "n=%d", n)
					} else {
						require.Less(t, time.Since(begun), time.Second)
					}
					fresh := fmt.Sprint("up ", n)
					begun = time.Now()
					connect(t, h, fresh)
					require.Less(t, time.Since(begun), 50*time.Millisecond)
					time.Sleep(time.Second)
				}
				require.LessOrEqual(t, most.Load(), int32(1024+128))
				giveUp()
				resuming.Wait()
			})
		})
	}
}

// A member that resumes from far behind and does not read holds a page, and
// shares it.
func TestResumeHoldsNoMoreThanAPage(t *testing.T) {
	for _, together := range []bool{true, false} {
		t.Run(fmt.Sprint("from one place ", together), func(t *testing.T) {
			bus := memory.NewBus()
			a, b := newHub(t, bus, keeping(100_000)), newHub(t, bus, keeping(100_000))
			data := bytes.Repeat([]byte("x"), 1000)
			for range 13_000 {
				require.NoError(t, a.Room("x").PublishAsync(within(t), data, nil))
			}
			require.NoError(t, a.Room("x").Publish(within(t), data))
			all, err := a.Room("x").History(within(t), fanout.Position{}, 0)
			require.NoError(t, err)
			at := make([]fanout.Position, 15)
			for i := range at {
				if !together {
					at[i] = all[i*800].Position
				}
			}
			all = nil
			before := heap()
			members := make([]*fanout.Member, len(at))
			for i := range members {
				members[i] = connect(t, b)
				require.NoError(t, b.Room("x").Resume(within(t), members[i], at[i]))
			}
			// Without what the room itself holds while its history is read.
			require.Eventually(t, func() bool {
				return heap()-before < 5<<20
			}, 20*time.Second, 500*time.Millisecond, "%d bytes more", heap()-before)
			want := 13_001
			for i, m := range members {
				if !together {
					want = 13_000 - i*800
				}
				if i%7 == 0 {
					require.Len(t, receive(t, m, want), want)
				}
			}
			require.Less(t, b.Stats().Reads, uint64(4*13_001/100))
			runtime.KeepAlive(all)
		})
	}
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Messages that are trimmed while a member reads its history are a gap at their
// place, and messages and gaps add up to what was published.
func TestResumeOfAMemberThatTheHistoryOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		o := keeping(3000)
		a, b := newHub(t, bus, o), newHub(t, bus, o)
		publish(t, a.Room("x"), 1, 1)
		at := position(t, a.Room("x"))
		publish(t, a.Room("x"), 2, 3000)
		m := connect(t, b)
		require.NoError(t, b.Room("x").Resume(within(t), m, at))
		require.Equal(t, numbers(2, 10), receive(t, m, 9))
		publish(t, a.Room("x"), 3001, 9000)
		time.Sleep(time.Minute)
		got, missed := 9, 0
		for got+missed < 8999 {
			msg, err := m.Receive(within(t))
			if gap := (*fanout.GapError)(nil); errors.As(err, &gap) {
				require.False(t, gap.Unknown)
				missed += gap.Missed
				continue
			}
			require.NoError(t, err)
			got++
			require.Equal(t, fmt.Sprint(1+got+missed), string(msg.Data))
		}
		require.Positive(t, missed)
		publish(t, a.Room("x"), 9001, 9001)
		require.Equal(t, numbers(9001, 9001), receive(t, m, 1))
	})
}

// A frame in the history that cannot be read is a gap for members that reach
// it.
func TestResumeOverAFrameThatCannotBeRead(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, keeping(100)), newHub(t, bus, keeping(100))
	publish(t, a.Room("x"), 1, 1)
	at := position(t, a.Room("x"))
	publish(t, a.Room("x"), 2, 3)
	stranger := bus.NewAdapter()
	_, _, err := stranger.Append(within(t), "fanout:r:{x}", adapter.Record{
		Frame: []byte("\xfafo\x01"), Messages: 5, Time: time.Now(), Keep: fanout.Retention{Messages: 100, Age: time.Hour},
	})
	require.NoError(t, err)
	require.NoError(t, stranger.Close(within(t)))
	publish(t, a.Room("x"), 9, 10)
	for range 2 {
		m := connect(t, b)
		require.NoError(t, b.Room("x").Resume(within(t), m, at))
		require.Equal(t, []string{"2", "3", "gap 5", "9", "10"}, receive(t, m, 5))
	}
	messages, err := b.Room("x").History(within(t), at, 0)
	require.Equal(t, &fanout.GapError{Room: "x", Missed: 5}, err)
	require.Equal(t, []string{"2", "3", "9", "10"}, texts(messages))
}

// Frames that wait for a reading are bounded: those that did not fit, and are
// not in the history, are reported missing.
func TestStrangersMessagesThatDoNotFitWhileAHistoryIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node, stranger := bus.NewAdapter(), bus.NewAdapter()
		h := newHubOn(t, node, keeping(100))
		m := connect(t, h, "x")
		say := func(data []byte) {
			_, err := stranger.Publish(within(t), "fanout:r:{x}", data)
			require.NoError(t, err)
		}
		mayRead := make(chan struct{})
		bus.InterceptReads(func(ctx context.Context, _ string, _ adapter.Query) error {
			select {
			case <-mayRead:
			case <-ctx.Done():
			}
			return nil
		})
		node.CutSubscriber()
		synctest.Wait()
		node.Heal()
		synctest.Wait() // the reading has begun
		for range 6 {
			say(make([]byte, 1<<20))
		}
		synctest.Wait()
		mayRead <- struct{}{}
		synctest.Wait() // it reads again, since not all has fit
		say([]byte("fits"))
		synctest.Wait()
		close(mayRead)
		require.Equal(t, []string{"gap 0+", "fits"}, receive(t, m, 2), "the gap comes first")
		publish(t, h.Room("x"), 1, 1)
		require.Equal(t, numbers(1, 1), receive(t, m, 1))
		require.NoError(t, stranger.Close(within(t)))
	})
}

// A member that lags while the server loses the history, and the subscription
// is down, waits for the log. It does not ask the server again and again.
func TestAHistoryThatIsLostWhileTheSubscriptionIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a, b := newHubOn(t, node, keeping(20_000)), newHub(t, bus, keeping(20_000))
		m := connect(t, a, "x")
		publish(t, b.Room("x"), 1, 2000)
		synctest.Wait()
		node.CutSubscriber()
		bus.Flush()
		synctest.Wait()
		before := a.Stats().Reads
		first := accountOf(t, m)
		require.LessOrEqual(t, a.Stats().Reads-before, uint64(10))
		node.Heal()
		publish(t, b.Room("x"), 2001, 2010)
		then := accountOf(t, m)
		require.Positive(t, first.unknown+then.unknown, "the history was lost")
		require.GreaterOrEqual(t, len(then.got), 10)
		require.Equal(t, numbers(2001, 2010), then.got[len(then.got)-10:], "it goes on")
		require.LessOrEqual(t, len(first.got)+first.missed+len(then.got)+then.missed, 2010)
	})
}
