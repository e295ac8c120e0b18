package fanout_test

import (
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

// publishAsync publishes, and returns the channel on which done sends its
// error.
func publishAsync(t testing.TB, p interface {
	PublishAsync(context.Context, []byte, func(error)) error
}, text string,
) chan error {
	t.Helper()
	c := make(chan error, 2)
	require.NoError(t, p.PublishAsync(within(t), []byte(text), func(err error) { c <- err }))
	return c
}

func TestPublishAsyncReturnsBeforeTheBackendHasTheMessage(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		data := []byte("1")
		told := make(chan error, 1)
		require.NoError(t, h.Room("x").PublishAsync(t.Context(), data, func(err error) { told <- err }))
		copy(data, "!") // it has been copied
		second, third := publishAsync(t, h.Room("x"), "2"), start(within(t), h, "3")
		synctest.Wait()
		require.Empty(t, told)
		gate <- memory.Fate{}
		require.NoError(t, <-told)
		gate <- memory.Fate{}
		require.NoError(t, <-second)
		require.NoError(t, <-third)
		require.Equal(t, []string{"1", "2", "3"}, receive(t, m, 3))
		require.EqualValues(t, 2, h.Stats().Frames)
	})
}

func TestPublishAsyncIsTriedAgainUntilItsTimeIsOver(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		first := publishAsync(t, h.Room("x"), "1")
		for range 3 {
			gate <- memory.Fate{Refuse: true, Err: fanout.ErrUnsent}
		}
		gate <- memory.Fate{}
		require.NoError(t, <-first)
		second, third := publishAsync(t, h.Room("x"), "2"), publishAsync(t, h.Room("x"), "3")
		begin := time.Now()
		require.ErrorIs(t, <-second, context.DeadlineExceeded)
		require.ErrorIs(t, <-third, context.DeadlineExceeded)
		require.Less(t, time.Since(begin), 25*time.Second, "twice PublishTimeout, and a last attempt")
		refused := publishAsync(t, h.Room("x"), "4")
		gate <- memory.Fate{Refuse: true, Err: fanout.ErrRefused}
		require.ErrorIs(t, <-refused, fanout.ErrRefused)
	})
}

// An attempt whose outcome is not known is sent again in a form that receivers
// recognise.
func TestPublishAsyncThatIsRetriedComesOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		first := publishAsync(t, h.Room("x"), "1")
		gate <- memory.Fate{Err: errors.New("the answer was lost")}
		gate <- memory.Fate{}
		require.NoError(t, <-first)
		second := publishAsync(t, h.Room("x"), "2")
		gate <- memory.Fate{}
		require.NoError(t, <-second)
		require.Equal(t, []string{"1", "2"}, receive(t, m, 2))
		require.EqualValues(t, 1, h.Stats().Repeated)
	})
}

func TestPublishAsyncCallsDoneOnceEachAndInOrder(t *testing.T) {
	for name, bus := range map[string]*memory.Bus{"alone": nil, "memory": memory.NewBus()} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, bus, nil)
			const n = 2000
			var order []int // callbacks are called by one goroutine
			var all sync.WaitGroup
			all.Add(n)
			for i := range n {
				require.NoError(t, h.Room("x").PublishAsync(within(t), []byte("m"), func(err error) {
					if err == nil {
						order = append(order, i)
					}
					all.Done()
				}))
			}
			all.Wait()
			for i := range n {
				require.Equal(t, i, order[i])
			}
			require.EqualValues(t, n, h.Stats().Published)
		})
	}
}

func TestPublishAsyncBadInput(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, &fanout.Options{MaxMessage: 10, Room: func(room string) fanout.RoomOptions {
		if room == "bad" {
			return fanout.RoomOptions{Retain: fanout.Retention{Messages: -1}}
		}
		return fanout.RoomOptions{}
	}})
	never := func(error) { t.Error("done is not called after an error") }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	large := make([]byte, 11)
	for name, c := range map[string]struct {
		got, want error
	}{
		"name":    {h.Room("").PublishAsync(t.Context(), nil, never), fanout.ErrInvalidRoom},
		"large":   {h.Room("x").PublishAsync(t.Context(), large, never), fanout.ErrTooLarge},
		"context": {h.Room("x").PublishAsync(ended, nil, never), context.Canceled},
		"unsent":  {h.Room("x").PublishAsync(ended, nil, never), fanout.ErrUnsent},
		"empty":   {h.In().PublishAsync(t.Context(), nil, never), fanout.ErrEmptySelection},
		"member":  {h.To("nobody").PublishAsync(t.Context(), nil, never), fanout.ErrInvalidMember},
		"ended":   {h.In("x", "y").PublishAsync(ended, nil, never), context.Canceled},
	} {
		require.ErrorIs(t, c.got, c.want, name)
	}
	require.ErrorIs(t, <-publishAsync(t, h.Room("bad"), "m"), fanout.ErrInvalidOption)
	require.NoError(t, h.Room("x").PublishAsync(t.Context(), []byte("nobody"), nil))
	require.NoError(t, h.Close(within(t)))
	require.ErrorIs(t, h.Room("x").PublishAsync(t.Context(), nil, never), fanout.ErrClosed)
	require.ErrorIs(t, h.In("x", "y").PublishAsync(t.Context(), nil, never), fanout.ErrClosed)
}

func TestPublishAsyncWaitsWhileTheBufferIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, &fanout.Options{PublishBuffer: 1000, PublishTimeout: time.Hour})
		m := connect(t, h, "x")
		gate := make(chan struct{})
		bus.Intercept(func(context.Context, memory.Frame) memory.Fate { <-gate; return memory.Fate{} })
		// A message that is larger than the whole buffer fits when the buffer is
		// empty.
		large := publishAsync(t, h.Room("x"), strings.Repeat("l", 2000))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		never := func(error) { t.Error("done is not called after an error") }
		err := h.Room("y").PublishAsync(ctx, []byte("2"), never)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, fanout.ErrUnsent)
		waiting := make(chan error, 1)
		told := make(chan error, 1)
		go func() {
			waiting <- h.Room("x").PublishAsync(t.Context(), []byte("3"), func(err error) { told <- err })
		}()
		synctest.Wait()
		require.Empty(t, waiting)
		close(gate)
		require.NoError(t, <-large)
		require.NoError(t, <-waiting)
		require.NoError(t, <-told)
		require.Equal(t, "3", receive(t, m, 2)[1])
	})
}

func TestPublishAsyncsCallbacksMayPublishAndHoldUpNobody(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, &fanout.Options{PublishBuffer: 300})
	m := connect(t, h, "x")
	stuck, again := make(chan struct{}), make(chan error, 1)
	require.NoError(t, h.Room("x").PublishAsync(within(t), []byte("1"), func(error) {
		// There is room for one message: it must not wait until this one has ended.
		again <- h.Room("x").PublishAsync(within(t), []byte("2"), nil)
		<-stuck
	}))
	require.NoError(t, <-again)
	require.NoError(t, h.Room("x").Publish(within(t), []byte("3")))
	require.NoError(t, h.Room("x").PublishAsync(within(t), []byte("4"), nil))
	require.Equal(t, []string{"1", "2", "3", "4"}, receive(t, m, 4))
	close(stuck)
}

func TestCloseFinishesWhatIsPublishedAsync(t *testing.T) {
	bus := memory.NewBus()
	other := newHub(t, bus, nil)
	m := connect(t, other, "x")
	h := newHub(t, bus, nil)
	const n = 100
	var told atomic.Int64
	for i := range n {
		require.NoError(t, h.Room("x").PublishAsync(t.Context(), fmt.Append(nil, i), func(err error) {
			if err == nil {
				told.Add(1)
			}
		}))
	}
	require.NoError(t, h.Close(within(t)))
	require.EqualValues(t, n, told.Load(), "Close returns when all have been told")
	require.Equal(t, numbers(0, n-1), receive(t, m, n))
}

func TestCloseGivesUpWhatIsPublishedAsyncWhenItsContextEnds(t *testing.T) {
	bus := memory.NewBus()
	h, err := fanout.New(bus.NewAdapter(), nil)
	require.NoError(t, err)
	connect(t, h, "x")
	bus.Cut()
	first, second := publishAsync(t, h.Room("x"), "1"), publishAsync(t, h.Room("x"), "2")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, h.Close(ctx), context.DeadlineExceeded)
	for _, c := range []chan error{first, second} {
		err := <-c
		require.ErrorIs(t, err, fanout.ErrClosed)
		require.ErrorIs(t, err, fanout.ErrUnsent)
	}
	require.NoError(t, h.Close(within(t)))
}

func TestPublishAsyncToASelection(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, nil), newHub(t, bus, nil)
	ann, bob := connect(t, a, "x", "y"), connect(t, b, "x", "z")
	for _, s := range []fanout.Selection{
		a.In("x", "y", "z"), a.In("y").Except(ann.ID()), a.To(ann.ID(), bob.ID()), a.Everyone(), a.In("x").Local(),
	} {
		c := publishAsync(t, s, "m")
		require.NoError(t, <-c)
	}
	require.NoError(t, a.To(ann.ID(), bob.ID()).Publish(within(t), []byte("end")))
	until := func(m *fanout.Member) (got []string) {
		for {
			one := receive(t, m, 1)
			if one[0] == "end" {
				return got
			}
			got = append(got, one...)
		}
	}
	// There is no order between rooms, so a direct message may come first.
	require.LessOrEqual(t, len(until(ann)), 4)
	require.LessOrEqual(t, len(until(bob)), 3)

	// All parts of a message end before done is called, once.
	bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
		if strings.Contains(f.Channel, "{y}") {
			return memory.Fate{Refuse: true, Err: fmt.Errorf("no: %w", fanout.ErrRefused)}
		}
		return memory.Fate{}
	})
	c := publishAsync(t, a.In("x", "y", "z"), "m")
	require.ErrorIs(t, <-c, fanout.ErrRefused)
	select {
	case err := <-c:
		t.Errorf("done was called again: %v", err)
	default:
	}
	bus.Intercept(nil)
	c = publishAsync(t, a.To("0123456789abcdef-1"), "m")
	require.ErrorIs(t, <-c, fanout.ErrNoReceiver)
}

func TestPublishTimeoutBoundsAllThatIsPublishedAsync(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		begin := time.Now()
		var waits []chan error
		for range 30 { // a frame each, or two
			waits = append(waits, publishAsync(t, h.Room("x"), string(make([]byte, 20<<10))))
		}
		for _, c := range waits {
			require.ErrorIs(t, <-c, context.DeadlineExceeded)
		}
		require.LessOrEqual(t, time.Since(begin), 12*time.Second, "and an attempt")
	})
}

func TestUnsentIsNotSaidOfWhatMayHaveArrived(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		lost := errors.New("the answer was lost")
		for name, last := range map[string]memory.Fate{
			"refused": {Refuse: true, Err: fmt.Errorf("%w: %w", fanout.ErrRefused, fanout.ErrUnsent)},
			"in time": {Refuse: true, Err: fanout.ErrUnsent},
		} {
			c := publishAsync(t, h.Room("x"), name)
			gate <- memory.Fate{Err: lost}
			var err error
			for err == nil {
				select {
				case gate <- last:
				case err = <-c:
				}
			}
			require.NotErrorIs(t, err, fanout.ErrUnsent, name)
			if name == "refused" {
				require.ErrorIs(t, err, fanout.ErrRefused)
			}
			require.Equal(t, []string{name}, receive(t, m, 1))
		}
	})
}

// panicky panics at the first frame, after it has published it.
type panicky struct {
	*memory.Adapter
	async    bool
	panicked atomic.Bool
	room     string
}

func (p *panicky) panics(channel string) bool {
	return strings.Contains(channel, p.room) && !p.panicked.Swap(true)
}

func (p *panicky) Publish(ctx context.Context, channel string, frame []byte) (int, error) {
	n, err := p.Adapter.Publish(ctx, channel, frame)
	if !p.async && p.panics(channel) {
		panic("boom")
	}
	return n, err
}

func (p *panicky) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	if p.async && p.panics(channel) {
		_, _ = p.Adapter.Publish(context.Background(), channel, frame)
		panic("boom")
	}
	return p.Adapter.PublishAsync(channel, frame, done)
}

func TestAPanickingAdapterHarmsOnlyItsMessage(t *testing.T) {
	for _, async := range []bool{false, true} {
		t.Run(fmt.Sprint("async ", async), func(t *testing.T) {
			h := newHubOn(t, &panicky{Adapter: memory.NewBus().NewAdapter(), async: async, room: "{x}"}, nil)
			m := connect(t, h, "x")
			told := make(chan error, 1)
			require.Panics(t, func() {
				if async {
					_ = h.Room("x").PublishAsync(t.Context(), []byte("1"), func(err error) { told <- err })
				} else {
					_ = h.Room("x").Publish(within(t), []byte("1"))
				}
			})
			if async {
				err := <-told
				require.Error(t, err)
				require.NotErrorIs(t, err, fanout.ErrUnsent)
			}
			publish(t, h.Room("x"), 2, 3)
			require.Equal(t, []string{"1", "2", "3"}, receive(t, m, 3))
		})
	}
}

func TestAPanicOfTheUsersLeavesNothingBehind(t *testing.T) {
	h := newHub(t, memory.NewBus(), &fanout.Options{Room: func(room string) fanout.RoomOptions {
		if room == "bad" {
			panic("boom")
		}
		return fanout.RoomOptions{}
	}})
	require.Panics(t, func() { _ = h.Room("bad").PublishAsync(t.Context(), nil, nil) })
	require.Panics(t, func() { _ = h.In("x", "bad").PublishAsync(t.Context(), nil, nil) })
	require.NoError(t, h.Close(within(t))) // it would wait for operations in flight
}

func TestACallbackThatEndsItsGoroutineEndsNoOther(t *testing.T) {
	h := newHub(t, memory.NewBus(), nil)
	require.NoError(t, h.Room("x").PublishAsync(t.Context(), nil, func(error) { runtime.Goexit() }))
	for range 3 {
		require.NoError(t, <-publishAsync(t, h.Room("x"), "m"))
	}
	require.NoError(t, h.Close(within(t)))
}

func TestWhatIsWithdrawnOrToldIsNotKept(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, &fanout.Options{PublishBuffer: 1 << 20})
	hold := make(chan struct{})
	large := make([]byte, 1<<20)
	for range 100 { // told, except publishers behind a callback that takes its time
		require.NoError(t, h.Room("x").PublishAsync(within(t), large, func(error) { <-hold }))
	}
	require.NoError(t, h.Room("x").Publish(within(t), nil))
	bus.Intercept(func(context.Context, memory.Frame) memory.Fate { <-hold; return memory.Fate{} })
	first := publishAsync(t, h.Room("x"), "1")
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		require.ErrorIs(t, h.Room("x").Publish(ctx, large), fanout.ErrUnsent)
		cancel()
	}
	runtime.GC()
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	require.Less(t, now.HeapAlloc, uint64(50<<20))
	close(hold)
	require.NoError(t, <-first)
}

// A closed hub neither asks about rooms, nor remembers them.
func TestAClosedHubAsksAboutNoRoom(t *testing.T) {
	asked := 0
	h, err := fanout.New(nil, &fanout.Options{Room: func(string) fanout.RoomOptions { asked++; panic("it is asked") }})
	require.NoError(t, err)
	require.NoError(t, h.Close(within(t)))
	rooms := h.Stats().Rooms
	for i := range 3 {
		room := h.Room(fmt.Sprint("room", i))
		for _, err := range []error{
			room.Publish(within(t), nil),
			room.PublishAsync(within(t), nil, func(error) { t.Error("it was not accepted") }),
		} {
			require.ErrorIs(t, err, fanout.ErrClosed)
			require.ErrorIs(t, err, fanout.ErrUnsent)
		}
	}
	require.Zero(t, asked)
	require.Equal(t, rooms, h.Stats().Rooms)
}

// A hub whose Options.Room panicked can be closed.
func TestAPanicOfRoomLeavesNothingInFlight(t *testing.T) {
	h, err := fanout.New(nil, &fanout.Options{Room: func(string) fanout.RoomOptions { panic("no") }})
	require.NoError(t, err)
	require.PanicsWithValue(t, "no", func() { h.Room("room").Publish(within(t), nil) })
	require.PanicsWithValue(t, "no", func() { h.Room("room").PublishAsync(within(t), nil, nil) })
	require.NoError(t, h.Close(within(t))) // it would wait for operations in flight
}
