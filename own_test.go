package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// An acl is an adapter whose backend refuses what it is told to.
type acl struct {
	*memory.Adapter
	refuses func(channel string) bool
	asked   atomic.Int64
}

var errNoRights = fmt.Errorf("NOPERM: %w", fanout.ErrRefused)

func (a *acl) Subscribe(ctx context.Context, channel string) error {
	a.asked.Add(1)
	if a.refuses(channel) {
		return errNoRights
	}
	return a.Adapter.Subscribe(ctx, channel)
}

func TestHubsOwnChannels(t *testing.T) {
	for name, channel := range map[string]string{"inbox": "fanout:i:", "everyone": "fanout:a:"} {
		t.Run("rights for the "+name+" that are granted later", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var granted atomic.Bool
				bus := memory.NewBus()
				a := &acl{Adapter: bus.NewAdapter(), refuses: func(c string) bool {
					return c[:len(channel)] == channel && !granted.Load()
				}}
				h, other := newHubOn(t, a, nil), newHub(t, bus, nil)
				m := connect(t, h)
				synctest.Wait()
				for range 3 {
					require.ErrorIs(t, h.Room("x").Join(within(t), m), fanout.ErrRefused)
					require.ErrorIs(t, h.Health(within(t)), fanout.ErrRefused)
					err := h.Everyone().Publish(within(t), nil)
					require.ErrorIs(t, err, fanout.ErrRefused)
					require.ErrorIs(t, err, fanout.ErrUnsent)
					require.ErrorContains(t, err, "NOPERM")
					time.Sleep(time.Minute)
				}
				require.Less(t, a.asked.Load(), int64(3*60*2*2+100), "it tries again with a pause")
				granted.Store(true)
				time.Sleep(time.Second)
				require.NoError(t, h.Health(within(t)))
				require.NoError(t, h.Room("x").Join(within(t), m))
				require.NoError(t, other.Everyone().Publish(within(t), []byte("1")))
				require.NoError(t, other.To(m.ID()).Publish(within(t), []byte("2")))
				require.ElementsMatch(t, numbers(1, 2), receive(t, m, 2))
			})
		})
	}
	t.Run("a refusal is not reported for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var refused atomic.Bool
			bus := memory.NewBus()
			node := bus.NewAdapter()
			a := &acl{Adapter: node, refuses: func(string) bool { return !refused.Swap(true) }}
			node.Cut() // the second attempt waits
			h := newHubOn(t, a, nil)
			m := connect(t, h)
			time.Sleep(10 * time.Second)
			joined := make(chan error, 1)
			go func() { joined <- h.Room("x").Join(within(t), m) }()
			synctest.Wait()
			require.Empty(t, joined, "now it is the link that is down")
			node.Heal()
			require.NoError(t, <-joined)
		})
	})
}

// Every wait has a bound, and its error says what it waited for.
func TestWaitsAreBounded(t *testing.T) {
	down := func(t *testing.T, test func(t *testing.T, h *fanout.Hub, bus *memory.Bus)) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			bus.Cut() // since the start
			test(t, newHub(t, bus, keeping(10)), bus)
		})
	}
	// ends checks that f ends by PublishTimeout, and says why.
	ends := func(t *testing.T, f func() error) {
		t.Helper()
		begin := time.Now()
		err := f()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(begin), 10*time.Second)
		require.GreaterOrEqual(t, time.Since(begin), 8*time.Second)
		require.ErrorContains(t, err, memory.ErrCut.Error(), "it says why")
	}
	t.Run("Everyone.Publish", func(t *testing.T) {
		down(t, func(t *testing.T, h *fanout.Hub, bus *memory.Bus) {
			ends(t, func() error {
				err := h.Everyone().Publish(context.Background(), []byte("1"))
				require.ErrorIs(t, err, fanout.ErrUnsent)
				return err
			})
			// One deadline is for the waiting and for what follows it.
			begin := time.Now()
			sent := make(chan error, 1)
			go func() { sent <- h.Everyone().Publish(context.Background(), []byte("1")) }()
			time.Sleep(8 * time.Second)
			bus.Intercept(func(context.Context, memory.Frame) memory.Fate {
				return memory.Fate{Refuse: true, Err: fmt.Errorf("busy: %w", fanout.ErrUnsent)}
			})
			bus.Heal()
			require.ErrorIs(t, <-sent, context.DeadlineExceeded)
			require.LessOrEqual(t, time.Since(begin), 10*time.Second)
			bus.Intercept(nil)
		})
	})
	t.Run("Everyone.PublishAsync", func(t *testing.T) {
		down(t, func(t *testing.T, h *fanout.Hub, _ *memory.Bus) {
			ends(t, func() error { return h.Everyone().PublishAsync(context.Background(), []byte("1"), nil) })
		})
	})
	t.Run("History", func(t *testing.T) {
		down(t, func(t *testing.T, h *fanout.Hub, _ *memory.Bus) {
			ends(t, func() error {
				_, err := h.Room("x").History(context.Background(), fanout.Position{}, 0)
				return err
			})
		})
	})
	t.Run("Health", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			h := newHub(t, bus, nil)
			bus.Intercept(func(context.Context, memory.Frame) memory.Fate { return memory.Fate{Delay: time.Hour} })
			begin := time.Now()
			require.ErrorIs(t, h.Health(context.Background()), context.DeadlineExceeded)
			require.LessOrEqual(t, time.Since(begin), 10*time.Second)
		})
	})
	t.Run("PublishAsync while the buffer is full", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &stuck{Adapter: memory.NewBus().NewAdapter(), free: make(chan struct{})}
			h := newHubOn(t, a, &fanout.Options{PublishBuffer: 1})
			require.NoError(t, h.Room("x").PublishAsync(context.Background(), []byte("1"), nil))
			begin := time.Now()
			err := h.Room("x").PublishAsync(context.Background(), []byte("2"), nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, fanout.ErrUnsent)
			require.LessOrEqual(t, time.Since(begin), 10*time.Second)
			close(a.free)
		})
	})
	t.Run("the janitor", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			h := newHubOn(t, deafToUnsubscribe{bus.NewAdapter()}, &fanout.Options{Linger: -1})
			m := connect(t, h, "stuck", "y")
			require.NoError(t, h.Room("stuck").Leave(t.Context(), m))
			synctest.Wait()
			require.NoError(t, h.Room("y").Leave(t.Context(), m))
			time.Sleep(6 * time.Second)
			require.Zero(t, bus.Subscribers("fanout:r:{y}"))
		})
	})
}

// deafToUnsubscribe does not answer before the context ends.
type deafToUnsubscribe struct{ *memory.Adapter }

func (d deafToUnsubscribe) Unsubscribe(ctx context.Context, channel string) error {
	if channel == "fanout:r:{stuck}" {
		<-ctx.Done()
		return ctx.Err()
	}
	return d.Adapter.Unsubscribe(ctx, channel)
}

// A stuck adapter neither publishes nor closes until it is set free, whatever
// its contexts say.
type stuck struct {
	fanout.Adapter
	free chan struct{}
}

func (s *stuck) Publish(context.Context, string, []byte) (int, error) {
	<-s.free
	return 0, errors.New("it was stuck")
}

func (s *stuck) Close(ctx context.Context) error {
	<-s.free
	return s.Adapter.Close(ctx)
}

func (s *stuck) Health() error { return errors.New("link to 10.1.2.3:6379: wrong password") }

// The error of a call that ends with its context says what the adapter knows.
func TestDeadlineErrorsSayWhatTheAdapterKnows(t *testing.T) {
	cases := map[string]func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error{
		"Join": func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error { return h.Room("x").Join(ctx, m) },
		"Resume": func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error {
			return h.Room("x").Resume(ctx, m, fanout.Position{})
		},
		"Publish": func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error { return h.Room("x").Publish(ctx, nil) },
		"In": func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error {
			return h.In("x", "y").Publish(ctx, nil)
		},
		"Everyone": func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error {
			return h.Everyone().Publish(ctx, nil)
		},
		"PublishAsync": func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error {
			done := make(chan error, 1)
			require.NoError(t, h.Room("x").PublishAsync(ctx, nil, func(err error) { done <- err }))
			return <-done
		},
		"History": func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error {
			_, err := h.Room("x").History(ctx, fanout.Position{}, 0)
			return err
		},
	}
	for _, since := range []string{"the start", "later"} {
		for name, do := range cases {
			t.Run(name+" down since "+since, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := &knowing{Adapter: memory.NewBus().NewAdapter()}
					if since == "the start" {
						a.Cut()
					}
					h := newHubOn(t, a, keeping(10))
					m := connect(t, h)
					synctest.Wait()
					a.Cut()
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					defer cancel()
					err := do(ctx, h, m)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorContains(t, err, "context deadline exceeded")
					require.ErrorContains(t, err, "(adapter: link to 10.1.2.3:6379: wrong password)")
				})
			})
		}
	}
}

type knowing struct{ *memory.Adapter }

func (k *knowing) Health() error { return errors.New("link to 10.1.2.3:6379: wrong password") }

func TestCloseOfAStuckAdapter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &stuck{Adapter: memory.NewBus().NewAdapter(), free: make(chan struct{})}
		h, err := fanout.New(a, nil)
		require.NoError(t, err)
		m := connect(t, h, "x")
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			begin := time.Now()
			err = h.Close(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "waiting for the adapter to close")
			require.Equal(t, time.Second, time.Since(begin))
		}
		_, err = m.Receive(t.Context())
		require.ErrorIs(t, err, fanout.ErrClosed)
		close(a.free)
		require.NoError(t, h.Close(within(t)))
	})
}
