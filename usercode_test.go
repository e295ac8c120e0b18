package fanout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever user code does, a panic included, nothing stays in use.
func TestUserCodeThatPanics(t *testing.T) {
	for name, end := range map[string]func(){"panics": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run("Options.Room, of one of several rooms: "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, memory.NewBus(), &fanout.Options{Room: func(room string) fanout.RoomOptions {
					if strings.HasPrefix(room, "bad") {
						end()
					}
					return fanout.RoomOptions{}
				}})
				m := connect(t, h)
				ctx := context.Background()
				for _, do := range []func(){
					func() { _ = h.In("a", "bad1").Publish(ctx, nil) },
					func() { _ = h.In("b", "c", "bad2", "d").Publish(ctx, nil) },
					func() { _ = h.In("e", "bad3").PublishAsync(ctx, nil, nil) },
					func() { _ = h.Room("bad4").Publish(ctx, nil) },
					func() { _ = h.Room("bad5").PublishAsync(ctx, nil, nil) },
					func() { _ = h.Room("bad6").Join(ctx, m) },
					func() { _ = h.Room("bad7").Resume(ctx, m, fanout.Position{}) },
					func() { _, _ = h.Room("bad8").History(ctx, fanout.Position{}, 0) },
				} {
					var caller sync.WaitGroup
					caller.Go(func() {
						defer func() { _ = recover() }()
						do()
					})
					caller.Wait()
				}
				time.Sleep(time.Minute)
				require.Zero(t, h.Stats().Rooms, "those before it are forgotten")
				require.NoError(t, h.Room("a").Join(within(t), m))
				require.NoError(t, h.Close(within(t)))
			})
		})
	}
	t.Run("the body of a loop over Messages", func(t *testing.T) {
		h := newHub(t, nil, nil)
		m := connect(t, h, "x")
		publish(t, h.Room("x"), 1, 2)
		require.Panics(t, func() {
			for range m.Messages(within(t)) {
				panic("boom")
			}
		})
		require.Equal(t, []string{"2"}, receive(t, m, 1), "it may receive again")
		require.NoError(t, h.Room("x").Leave(t.Context(), m))
	})
	t.Run("an adapter that subscribes", func(t *testing.T) {
		var calm atomic.Bool
		a := &acl{Adapter: memory.NewBus().NewAdapter(), refuses: func(channel string) bool {
			if channel == "fanout:r:{x}" && !calm.Load() {
				panic("boom")
			}
			return false
		}}
		h := newHubOn(t, a, nil)
		m := connect(t, h)
		require.Panics(t, func() { _ = h.Room("x").Join(within(t), m) })
		require.Empty(t, m.Rooms())
		calm.Store(true)
		require.NoError(t, h.Room("x").Join(within(t), m))
	})
}

// A Join at the same time as a Resume of the same member and room has its own
// outcome.
func TestJoinBesideAResume(t *testing.T) {
	for name, since := range map[string]string{"that is ahead": "ahead", "that is cancelled": "cancelled", "that succeeds": "v1-0-0"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				o := keeping(100)
				o.Window = fanout.Window{Messages: 4}
				a, b := newHub(t, bus, o), newHub(t, bus, o)
				publish(t, a.Room("x"), 1, 50)
				connect(t, b, "x")
				at := fanout.Position{}
				if since == "ahead" {
					at = position(t, a.Room("x"))
					at.Offset += 1000
				}
				unblock := blockReads(bus, "x")
				defer unblock()
				m := connect(t, b)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				resumed, joined := make(chan error, 1), make(chan error, 1)
				go func() { resumed <- b.Room("x").Resume(ctx, m, at) }()
				synctest.Wait()
				require.Empty(t, resumed)
				go func() { joined <- b.Room("x").Join(context.Background(), m) }()
				synctest.Wait()
				switch since {
				case "ahead":
					unblock()
					require.ErrorIs(t, <-resumed, fanout.ErrInvalidPosition)
				case "cancelled":
					cancel()
					require.ErrorIs(t, <-resumed, context.Canceled)
				default:
					unblock()
					require.NoError(t, <-resumed)
				}
				require.NoError(t, <-joined)
				require.Equal(t, []string{"x"}, m.Rooms())
				publish(t, a.Room("x"), 51, 51)
				if since == "v1-0-0" {
					require.Equal(t, numbers(1, 51), receive(t, m, 51))
				} else {
					require.Equal(t, numbers(51, 51), receive(t, m, 1))
				}
			})
		})
	}
}

// The context of a Join is not kept after the Join has returned.
func TestContextsAreNotKept(t *testing.T) {
	for name, room := range map[string]string{"with a history": "kept", "without": "plain"} {
		t.Run("of the first Join of a room "+name, func(t *testing.T) {
			h := newHub(t, memory.NewBus(), &fanout.Options{Room: func(room string) fanout.RoomOptions {
				if room == "kept" {
					return fanout.RoomOptions{Retain: fanout.Retention{Messages: 10}}
				}
				return fanout.RoomOptions{}
			}})
			m := connect(t, h)
			free := make(chan struct{})
			func() {
				type key struct{}
				value := new([1 << 10]byte)
				runtime.AddCleanup(value, func(struct{}) { close(free) }, struct{}{})
				ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, value))
				defer cancel()
				require.NoError(t, h.Room(room).Join(ctx, m))
			}()
			require.Eventually(t, func() bool {
				runtime.GC()
				select {
				case <-free:
					return true
				default:
					return false
				}
			}, 10*time.Second, time.Millisecond)
			require.Equal(t, []string{room}, m.Rooms())
		})
	}
}

// A logger is a slog.Handler that a test controls, and the lines that it was
// given.
type logger struct {
	mu    sync.Mutex
	lines bytes.Buffer
	do    func(line string)
}

func (l *logger) Enabled(context.Context, slog.Level) bool { return true }
func (l *logger) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logger) WithGroup(string) slog.Handler            { return l }
func (l *logger) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprint(" ", a); return true })
	l.mu.Lock()
	fmt.Fprintln(&l.lines, line)
	l.mu.Unlock()
	l.do(line)
	return nil
}

func (l *logger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}

// grumbles unsubscribes with an error, which is worth a line.
type grumbles struct{ *memory.Adapter }

func (g grumbles) Unsubscribe(ctx context.Context, channel string) error {
	_ = g.Adapter.Unsubscribe(ctx, channel)
	return errors.New("no")
}

func TestLogger(t *testing.T) {
	malformed := []byte("\xfafo")
	t.Run("that blocks delays nobody", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			stranger := bus.NewAdapter()
			defer stranger.Close(context.Background())
			release := make(chan struct{})
			l := &logger{do: func(string) { <-release }}
			h, err := fanout.New(grumbles{bus.NewAdapter()}, &fanout.Options{Logger: slog.New(l), Linger: -1})
			require.NoError(t, err)
			m := connect(t, h, "x")
			_, err = stranger.Publish(within(t), "fanout:r:{x}", malformed)
			require.NoError(t, err)
			require.Equal(t, []string{"gap 0+"}, receive(t, m, 1))
			synctest.Wait()   // the Logger has the first line, and blocks
			const rooms = 200 // each says a line when it ends
			for n := range rooms {
				room := h.Room(fmt.Sprint("room", n))
				require.NoError(t, room.Join(within(t), m))
				require.NoError(t, room.Leave(within(t), m))
				publish(t, h.Room("x"), n, n)
				require.Equal(t, numbers(n, n), receive(t, m, 1))
			}
			time.Sleep(10 * time.Second)
			begin := time.Now()
			err = h.Close(context.Background())
			require.ErrorContains(t, err, "Options.Logger")
			require.LessOrEqual(t, time.Since(begin), 2*time.Second)
			require.Equal(t, 1, strings.Count(l.String(), "\n"))
			require.ErrorContains(t, h.Close(context.Background()), "Options.Logger")
			close(release)
			synctest.Wait()
			require.Contains(t, l.String(), "frame dropped")
			require.Contains(t, l.String(), fmt.Sprintf("log lines dropped, Options.Logger is too slow lines=%d", 1+rooms-1-64))
		})
	})
	for name, end := range map[string]func(){"panics": func() { panic("boom") }, "ends its goroutine": runtime.Goexit} {
		t.Run("that "+name+" ends nothing else", func(t *testing.T) {
			bus := memory.NewBus()
			l := &logger{do: func(string) { end() }}
			h, err := fanout.New(grumbles{bus.NewAdapter()}, &fanout.Options{Logger: slog.New(l), Linger: -1})
			require.NoError(t, err)
			m := connect(t, h)
			for n := range 3 {
				require.NoError(t, h.Room(fmt.Sprint("room", n)).Join(within(t), m))
				require.NoError(t, h.Room(fmt.Sprint("room", n)).Leave(within(t), m))
			}
			require.Eventually(t, func() bool { return strings.Count(l.String(), "unsubscribing") == 3 }, 10*time.Second, time.Millisecond)
			require.NoError(t, h.Close(within(t)))
		})
	}
	// A Logger may use the hub, for it is called under no lock of the hub's.
	t.Run("that uses the hub", func(t *testing.T) {
		bus := memory.NewBus()
		stranger := bus.NewAdapter()
		defer stranger.Close(context.Background())
		var h *fanout.Hub
		var m *fanout.Member
		used := make(chan error, 100)
		l := &logger{do: func(string) {
			used <- errors.Join(h.Room("log").Publish(context.Background(), []byte("line")), h.Health(context.Background()),
				h.Room("log").Leave(context.Background(), m), h.Room("log").Join(context.Background(), m))
		}}
		h = newHubOn(t, grumbles{bus.NewAdapter()}, &fanout.Options{Logger: slog.New(l), Linger: -1})
		m = connect(t, h, "x")
		_, err := stranger.Publish(within(t), "fanout:r:{x}", malformed)
		require.NoError(t, err)
		select {
		case err := <-used:
			require.NoError(t, err)
		case <-within(t).Done():
			t.Fatal("it hangs")
		}
		require.NoError(t, h.Room("x").Leave(within(t), m)) // says another
		assert.NoError(t, <-used)
	})
}

// A callback that ends its own hub waits for itself, and learns it from the
// error. Nothing hangs after that.
func TestCallbackThatEndsItsHub(t *testing.T) {
	closeHub := func(ctx context.Context, h *fanout.Hub) error { return h.Close(ctx) }
	drainHub := func(ctx context.Context, h *fanout.Hub) error { return h.Drain(ctx) }
	for _, c := range []struct {
		name  string
		end   func(context.Context, *fanout.Hub) error
		where string // the callback
		says  string
	}{
		{"Close in OnReady", closeHub, "OnReady", "calls of OnReady, OnJoin and OnLeave"},
		{"Close in OnJoin", closeHub, "OnJoin", "calls of OnReady, OnJoin and OnLeave"},
		{"Close in done", closeHub, "done", "callbacks of PublishAsync"},
		{"Drain in OnReady", drainHub, "OnReady", "members that had not received everything: 1"},
		{"Drain in OnJoin", drainHub, "OnJoin", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var h *fanout.Hub
				ended := make(chan error, 10)
				endIn := func(where string) {
					if c.where == where && len(ended) == 0 {
						ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
						defer cancel()
						ended <- c.end(ctx, h)
					}
				}
				h = newHub(t, nil, &fanout.Options{OnJoin: func(string, *fanout.Member) { endIn("OnJoin") }})
				o := &fanout.MemberOptions{}
				if c.where == "OnReady" {
					o.OnReady = func(m *fanout.Member) {
						_, _ = m.TryReceiveBatch(make([]fanout.Message, 4))
						endIn("OnReady")
					}
				}
				m, err := h.Connect(o)
				require.NoError(t, err)
				if c.where != "OnReady" {
					go func() {
						for range m.Messages(context.Background()) {
						}
					}()
				}
				require.NoError(t, h.Room("x").Join(within(t), m))
				if c.where != "OnJoin" { // which may have closed the hub already
					require.NoError(t, h.Room("x").PublishAsync(within(t), nil, func(error) { endIn("done") }))
				}
				if err := <-ended; c.says == "" {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorContains(t, err, c.says)
				}
			})
		})
	}
}
