package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// What follows holds for an adapter that publishes asynchronously and for one
// that does not, and is shown for both: a gate holds back each frame of the
// room "x" until it is given a fate.
func eachWay(t *testing.T, test func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate)) {
	for name, wrap := range map[string]func(*memory.Adapter) fanout.Adapter{
		"async":    func(a *memory.Adapter) fanout.Adapter { return a },
		"blocking": func(a *memory.Adapter) fanout.Adapter { return struct{ fanout.Adapter }{a} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				h := newHubOn(t, wrap(bus.NewAdapter()), nil)
				m := connect(t, h, "x")
				gate := make(chan memory.Fate)
				bus.Intercept(inRooms(func(ctx context.Context, f memory.Frame) memory.Fate {
					select {
					case fate := <-gate:
						return fate
					case <-ctx.Done():
						return memory.Fate{Refuse: true, Err: fmt.Errorf("%w: %w", ctx.Err(), fanout.ErrUnsent)}
					}
				}))
				test(t, h, m, gate)
				bus.Intercept(nil)
			})
		})
	}
}

// start publishes in a goroutine, and returns when that has got as far as it
// can.
func start(ctx context.Context, h *fanout.Hub, text string) chan error {
	c := make(chan error, 1)
	go func() { c <- h.Room("x").Publish(ctx, []byte(text)) }()
	synctest.Wait()
	return c
}

func TestWhatGathersGoesTogetherAndSharesItsFate(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		var waits []chan error
		for n := range 4 {
			waits = append(waits, start(within(t), h, fmt.Sprint(n)))
		}
		gate <- memory.Fate{}
		require.NoError(t, <-waits[0])
		boom := errors.New("boom")
		gate <- memory.Fate{Refuse: true, Err: fmt.Errorf("%w: %w: %w", boom, fanout.ErrRefused, fanout.ErrUnsent)}
		for _, c := range waits[1:] {
			err := <-c
			require.ErrorIs(t, err, boom)
			require.ErrorIs(t, err, fanout.ErrUnsent)
		}
		last := start(within(t), h, "4")
		gate <- memory.Fate{}
		require.NoError(t, <-last)
		require.Equal(t, []string{"0", "4"}, receive(t, m, 2), "numbers that nobody can have seen are used again")
	})
}

func TestPublishGivenUpBeforeItsFrameIsSent(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		first := start(within(t), h, "1")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var leaving, staying []chan error
		for n := range 6 {
			leaving = append(leaving, start(ctx, h, fmt.Sprint("leaves ", n)))
			staying = append(staying, start(within(t), h, fmt.Sprint("stays ", n)))
		}
		cancel()
		for _, c := range leaving {
			err := <-c
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, fanout.ErrUnsent)
		}
		gate <- memory.Fate{}
		gate <- memory.Fate{}
		require.NoError(t, <-first)
		for _, c := range staying {
			require.NoError(t, <-c)
		}
		require.Equal(t, []string{"1", "stays 0", "stays 1", "stays 2", "stays 3", "stays 4", "stays 5"}, receive(t, m, 7))
		require.EqualValues(t, 2, h.Stats().Frames)
	})
}

func TestFrameThatAllPublishersHaveLeft(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		first := start(within(t), h, "1")
		ctx, cancel := context.WithCancel(t.Context())
		second := start(ctx, h, "2")
		cancel()
		require.ErrorIs(t, <-second, fanout.ErrUnsent)
		gate <- memory.Fate{}
		require.NoError(t, <-first)
		synctest.Wait()
		third := start(within(t), h, "3")
		gate <- memory.Fate{}
		require.NoError(t, <-third)
		require.Equal(t, []string{"1", "3"}, receive(t, m, 2))
	})
}

func TestOnePublishersDeadlineDoesNotHarmTheOthersOfItsFrame(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		first := start(within(t), h, "1")
		ctx, cancel := context.WithCancel(t.Context())
		second, third := start(ctx, h, "2"), start(within(t), h, "3")
		gate <- memory.Fate{}
		require.NoError(t, <-first)
		synctest.Wait() // 2 and 3 are under way
		cancel()
		err := <-second
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, fanout.ErrUnsent)
		gate <- memory.Fate{}
		require.NoError(t, <-third)
		require.Equal(t, []string{"1", "2", "3"}, receive(t, m, 3))
	})
}

// A publish without a deadline ends after PublishTimeout, however slow the
// backend is, also if it waits for the frames of others.
func TestPublishTimeoutBoundsWaitingForOthers(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		begin := time.Now() // of a clock that stands still but for this
		var waits []chan error
		for n := range 3 {
			waits = append(waits, start(context.Background(), h, fmt.Sprint(n)))
		}
		for _, c := range waits {
			require.ErrorIs(t, <-c, context.DeadlineExceeded)
		}
		require.LessOrEqual(t, time.Since(begin), 10*time.Second)
	})
}

func TestALargeMessageGoesAloneInItsPlace(t *testing.T) {
	eachWay(t, func(t *testing.T, h *fanout.Hub, m *fanout.Member, gate chan memory.Fate) {
		large := string(make([]byte, 80<<10))
		texts := []string{"1", "2", large, "3", large, "4"}
		var waits []chan error
		for _, text := range texts {
			waits = append(waits, start(within(t), h, text))
		}
		for range texts {
			gate <- memory.Fate{}
		}
		for _, c := range waits {
			require.NoError(t, <-c)
		}
		require.Equal(t, texts, receive(t, m, len(texts)))
		require.EqualValues(t, len(texts), h.Stats().Frames)
	})
}

func TestEachPublishersMessagesStayInOrder(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, &fanout.Options{Window: fanout.Window{Messages: 1 << 16, Bytes: 1 << 26}})
	m := connect(t, h, "x")
	const publishers, each = 16, 300
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for n := range each {
				var err error
				if n%3 == 0 {
					err = h.Room("x").PublishAsync(within(t), fmt.Appendf(nil, "%d %d", p, n), nil)
				} else {
					err = h.Room("x").Publish(within(t), fmt.Appendf(nil, "%d %d", p, n))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := make([]int, publishers)
	for _, text := range receive(t, m, publishers*each) {
		var p, n int
		_, err := fmt.Sscan(text, &p, &n)
		require.NoError(t, err)
		require.Equal(t, next[p], n)
		next[p]++
	}
}
