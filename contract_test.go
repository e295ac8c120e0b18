package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/stretchr/testify/require"
)

// The Data of an empty message is not nil, however the message came.
func TestEmptyMessagesAreNotNil(t *testing.T) {
	for _, backend := range []string{"none", "memory"} {
		for name, data := range map[string][]byte{"nil": nil, "empty": {}} {
			t.Run(name+" over "+backend, func(t *testing.T) {
				var bus *memory.Bus
				if backend == "memory" {
					bus = memory.NewBus()
				}
				o := &fanout.Options{LocalFallback: true, Room: func(room string) fanout.RoomOptions {
					if room == "kept" {
						return fanout.RoomOptions{Retain: fanout.Retention{Messages: 100}}
					}
					return fanout.RoomOptions{}
				}}
				h := newHub(t, bus, o)
				far := h
				if bus != nil {
					far = newHub(t, bus, o)
				}
				m := connect(t, far, "x", "y", "z", "kept") // z: a second copy in x would make the volatile message late
				ctx := within(t)
				for _, s := range []struct {
					name string
					to   interface {
						Publish(context.Context, []byte) error
						PublishAsync(context.Context, []byte, func(error)) error
					}
				}{
					// Before "several", whose second copy may still be unread
					// after the first: the member then lags, and Volatile
					// leaves it out.
					{"volatile", h.In("x").Volatile()},
					{"room", h.Room("x")},
					{"kept", h.Room("kept")},
					{"in", h.In("x")},
					{"several", h.In("x", "y")},
					{"to", h.To(m.ID())},
					{"to one's own", far.To(m.ID())},
					{"everyone", h.Everyone()},
					{"local", far.In("x").Local()},
					{"local to", far.To(m.ID()).Local()},
					{"local everyone", far.Everyone().Local()},
					{"except", h.In("x").Except(h.ID() + "-zz")},
				} {
					check := func(way string) {
						t.Helper()
						msg, err := m.Receive(ctx)
						require.NoError(t, err, s.name+", "+way)
						require.NotNil(t, msg.Data, s.name+", "+way)
						require.Empty(t, msg.Data)
					}
					require.NoError(t, s.to.Publish(ctx, data))
					check("Publish")
					done := make(chan error, 1)
					require.NoError(t, s.to.PublishAsync(ctx, data, func(err error) { done <- err }))
					require.NoError(t, <-done)
					check("PublishAsync")
				}
				all, err := h.Room("kept").History(ctx, fanout.Position{}, 0)
				require.NoError(t, err)
				require.NotEmpty(t, all)
				for _, msg := range all {
					require.NotNil(t, msg.Data)
				}
				resumed := connect(t, far)
				require.NoError(t, far.Room("kept").Resume(ctx, resumed, fanout.Position{}))
				msg, err := resumed.Receive(ctx)
				require.NoError(t, err)
				require.NotNil(t, msg.Data)
				if bus == nil {
					return
				}
				stranger := bus.NewAdapter()
				defer stranger.Close(ctx)
				_, err = stranger.Publish(ctx, "fanout:r:{x}", data)
				require.NoError(t, err)
				msg, err = m.Receive(ctx)
				require.NoError(t, err)
				require.NotNil(t, msg.Data, "a stranger's")
			})
		}
	}
	t.Run("of the fallback", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			h := newHub(t, bus, &fanout.Options{LocalFallback: true})
			m := connect(t, h, "x")
			bus.Cut()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, h.Room("x").Publish(ctx, nil), fanout.ErrLocalOnly)
			msg, err := m.Receive(within(t))
			require.NoError(t, err)
			require.NotNil(t, msg.Data)
		})
	})
}

func TestNewRefusesAdaptersThatAreNil(t *testing.T) {
	for _, a := range []fanout.Adapter{
		(*memory.Adapter)(nil), (*sharded.Adapter)(nil), (*redis.Adapter)(nil), nilMap(nil), nilFunc(nil),
	} {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			h, err := fanout.New(a, nil)
			require.Nil(t, h)
			require.ErrorIs(t, err, fanout.ErrInvalidOption)
			require.ErrorContains(t, err, fmt.Sprintf("%T", a))
		})
	}
}

type nilMap map[string]int

func (m nilMap) Attach(fanout.Receiver) error                       { m["x"] = 1; return nil }
func (nilMap) Subscribe(context.Context, string) error              { return nil }
func (nilMap) Unsubscribe(context.Context, string) error            { return nil }
func (nilMap) Publish(context.Context, string, []byte) (int, error) { return 0, nil }
func (nilMap) Close(context.Context) error                          { return nil }

type nilFunc func()

func (f nilFunc) Attach(fanout.Receiver) error                       { f(); return nil }
func (nilFunc) Subscribe(context.Context, string) error              { return nil }
func (nilFunc) Unsubscribe(context.Context, string) error            { return nil }
func (nilFunc) Publish(context.Context, string, []byte) (int, error) { return 0, nil }
func (nilFunc) Close(context.Context) error                          { return nil }

// unattachable cannot be attached.
type unattachable struct{ fanout.Adapter }

var errUnattachable = errors.New("no sockets left")

func (unattachable) Attach(fanout.Receiver) error { return errUnattachable }

func TestNewThatFailsClosesTheAdapter(t *testing.T) {
	closed := func(a *memory.Adapter) bool { return errors.Is(a.Health(), fanout.ErrClosed) }
	t.Run("for an option", func(t *testing.T) {
		a := memory.NewBus().NewAdapter()
		_, err := fanout.New(a, &fanout.Options{MaxMessage: -1})
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.True(t, closed(a))
	})
	t.Run("for Attach", func(t *testing.T) {
		a := memory.NewBus().NewAdapter()
		_, err := fanout.New(unattachable{a}, nil)
		require.ErrorIs(t, err, errUnattachable)
		require.True(t, closed(a))
	})
	t.Run("but not another hub's", func(t *testing.T) {
		a := memory.NewBus().NewAdapter()
		h := newHubOn(t, a, nil)
		m := connect(t, h, "x")
		_, err := fanout.New(a, nil)
		require.Error(t, err)
		_, err = fanout.New(a, &fanout.Options{MaxMessage: -1})
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		publish(t, h.Room("x"), 1, 1)
		require.Equal(t, numbers(1, 1), receive(t, m, 1))
	})
	t.Run("and waits for it no longer than 5 s", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &closesSlowly{Adapter: memory.NewBus().NewAdapter()}
			begin := time.Now()
			_, err := fanout.New(a, &fanout.Options{MaxMessage: -1})
			require.ErrorIs(t, err, fanout.ErrInvalidOption)
			require.Equal(t, 5*time.Second, time.Since(begin))
			require.NoError(t, a.Adapter.Close(t.Context()))
		})
	})
}

type closesSlowly struct{ fanout.Adapter }

func (closesSlowly) Close(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// ErrUnsent means that no member can have got the message.
func TestErrUnsentOfAMessageToSeveral(t *testing.T) {
	refuse := func(t *testing.T, bus *memory.Bus, channels ...string) {
		t.Helper()
		bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			for _, c := range channels {
				if f.Channel == c {
					return memory.Fate{Refuse: true, Err: fmt.Errorf("%w: %w: %w", &marked{c}, fanout.ErrRefused, fanout.ErrUnsent)}
				}
			}
			return memory.Fate{}
		})
	}
	bus := memory.NewBus()
	h, other := newHub(t, bus, nil), newHub(t, bus, nil)
	m, near := connect(t, other, "x", "y"), connect(t, h)
	x, y, inbox := "fanout:r:{x}", "fanout:r:{y}", "fanout:i:{"+other.ID()+"}"
	ways := map[string]func(s fanout.Selection) error{
		"Publish": func(s fanout.Selection) error { return s.Publish(within(t), nil) },
		"PublishAsync": func(s fanout.Selection) error {
			done := make(chan error, 1)
			require.NoError(t, s.PublishAsync(within(t), nil, func(err error) { done <- err }))
			return <-done
		},
	}
	for way, do := range ways {
		t.Run(way, func(t *testing.T) {
			for name, c := range map[string]struct {
				to      fanout.Selection
				refused []string
				unsent  bool
			}{
				"one of two rooms":       {h.In("x", "y"), []string{y}, false},
				"the other of two rooms": {h.In("x", "y"), []string{x}, false},
				"both rooms":             {h.In("x", "y"), []string{x, y}, true},
				"the only room":          {h.In("x"), []string{x}, true},
				"one of two hubs":        {h.To(near.ID(), m.ID()), []string{inbox}, false},
				"the only hub":           {h.To(m.ID()), []string{inbox}, true},
			} {
				refuse(t, bus, c.refused...)
				err := do(c.to)
				require.ErrorIs(t, err, fanout.ErrRefused, name)
				require.Equal(t, c.unsent, errors.Is(err, fanout.ErrUnsent), name)
				var single *marked
				require.ErrorAs(t, err, &single, name)
				require.Contains(t, c.refused, single.channel)
				require.ErrorContains(t, err, single.channel)
			}
		})
	}
	bus.Intercept(nil)

	t.Run("LocalFallback", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			h := newHub(t, bus, &fanout.Options{LocalFallback: true})
			m := connect(t, h, "x")
			bus.Cut()
			errs := make(chan error, 3)
			for n := range 3 { // the first by itself, the others wait for it
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(9-n)*time.Second)
				defer cancel()
				go func() { errs <- h.Room("x").Publish(ctx, fmt.Append(nil, n)) }()
				synctest.Wait()
			}
			for range 3 {
				err := <-errs
				require.ErrorIs(t, err, fanout.ErrLocalOnly)
				require.NotErrorIs(t, err, fanout.ErrUnsent, "members of this hub have it")
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			require.ElementsMatch(t, numbers(0, 2), receive(t, m, 3))
		})
	})
}

// marked is an error that says where it comes from.
type marked struct{ channel string }

func (m *marked) Error() string { return "no rights on " + m.channel }
