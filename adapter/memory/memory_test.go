package memory_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/wire"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A log is a receiver that records its calls.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (l *log) Receive(channel string, frame []byte) { l.add(channel + " " + string(frame)) }
func (l *log) Interrupted(channel string)           { l.add(channel + " interrupted") }
func (l *log) Restored(channel string)              { l.add(channel + " restored") }

// take waits until all is quiet, and returns what was written since the last
// time.
func (l *log) take() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

func (l *log) want(t *testing.T, want ...string) {
	t.Helper()
	if got := l.take(); !slices.Equal(got, want) {
		t.Errorf("receiver was told %q, want %q", got, want)
	}
}

// bubble runs f in a bubble with a bus, which it closes.
func bubble(t *testing.T, f func(t *testing.T, bus *memory.Bus)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		f(t, bus)
		if err := bus.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if left := bus.Channels(); len(left) > 0 {
			t.Errorf("after Close the bus still has channels %q", left)
		}
	})
}

// join attaches a new adapter and subscribes it.
func join(t *testing.T, bus *memory.Bus, channels ...string) (*memory.Adapter, *log) {
	t.Helper()
	a, l := bus.NewAdapter(), new(log)
	if err := a.Attach(l); err != nil {
		t.Fatal(err)
	}
	for _, c := range channels {
		if err := a.Subscribe(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	return a, l
}

func publish(t *testing.T, a *memory.Adapter, channel, frame string, want int) {
	t.Helper()
	n, err := a.Publish(t.Context(), channel, []byte(frame))
	if err != nil || n != want {
		t.Errorf("Publish(%q, %q) = %d, %v, want %d", channel, frame, n, err, want)
	}
}

func TestCutAndHeal(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, heardA := join(t, bus, "x")
		b, heardB := join(t, bus, "x")
		publish(t, b, "x", "1", 2)

		a.Cut()
		a.Cut()
		publish(t, b, "x", "2", 1)
		if _, err := a.Publish(t.Context(), "x", []byte("3")); !errors.Is(err, fanout.ErrUnsent) || !errors.Is(err, memory.ErrCut) {
			t.Errorf("Publish over a cut link: %v", err)
		}
		if err := a.Health(); !errors.Is(err, memory.ErrCut) {
			t.Errorf("Health with a cut link: %v", err)
		}
		if err := b.Health(); err != nil {
			t.Errorf("Health of the other node: %v", err)
		}
		a.Heal()
		a.Heal()
		publish(t, b, "x", "4", 2)
		if err := a.Health(); err != nil {
			t.Errorf("Health after Heal: %v", err)
		}
		heardA.want(t, "x 1", "x interrupted", "x restored", "x 4")
		heardB.want(t, "x 1", "x 2", "x 4")
	})
}

func TestCutInbound(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, heardA := join(t, bus, "x")
		_, heardB := join(t, bus, "x")
		a.CutInbound()
		if _, err := a.Publish(t.Context(), "x", []byte("1")); err == nil || errors.Is(err, fanout.ErrUnsent) {
			t.Errorf("Publish whose answer is lost: %v", err)
		}
		heardA.want(t, "x interrupted")
		heardB.want(t, "x 1")
	})
}

func TestCutSubscriber(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, heardA := join(t, bus, "x")
		_, heardB := join(t, bus, "x")
		a.CutSubscriber()
		publish(t, a, "x", "1", 1)
		a.Heal()
		publish(t, a, "x", "2", 2)
		heardA.want(t, "x interrupted", "x restored", "x 2")
		heardB.want(t, "x 1", "x 2")
	})
}

func TestBusCut(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		_, heard := join(t, bus, "x")
		bus.Cut()
		late, _ := join(t, bus)
		if err := late.Health(); !errors.Is(err, memory.ErrCut) {
			t.Errorf("Health of an adapter made while the server is down: %v", err)
		}
		bus.Heal()
		publish(t, late, "x", "1", 1)
		heard.want(t, "x interrupted", "x restored", "x 1")
	})
}

func TestSubscribeWaitsForHeal(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, heard := join(t, bus)
		a.Cut()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Subscribe(short, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Subscribe over a cut link: %v", err)
		}
		time.AfterFunc(time.Minute, a.Heal)
		if err := a.Subscribe(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		publish(t, a, "x", "1", 1)
		heard.want(t, "x 1")
	})
}

func TestCloseEndsAWait(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, _ := join(t, bus)
		a.Cut()
		done := make(chan error)
		go func() { done <- a.Subscribe(context.Background(), "x") }()
		synctest.Wait()
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, fanout.ErrClosed) {
			t.Errorf("Subscribe during Close: %v", err)
		}
	})
}

func TestCloseEndsAnInterceptor(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, _ := join(t, bus)
		bus.Intercept(func(ctx context.Context, _ memory.Frame) memory.Fate {
			<-ctx.Done()
			return memory.Fate{}
		})
		done := make(chan error)
		go func() {
			_, err := a.Publish(context.Background(), "x", nil)
			done <- err
		}()
		synctest.Wait()
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, fanout.ErrClosed) || !errors.Is(err, fanout.ErrUnsent) {
			t.Errorf("Publish during Close: %v", err)
		}
	})
}

func TestDropNext(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, heard := join(t, bus, "x")
		bus.DropNext(2)
		publish(t, a, "x", "1", 0)
		publish(t, a, "x", "2", 0)
		publish(t, a, "x", "3", 1)
		heard.want(t, "x 3")
	})
}

func TestFates(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, heardA := join(t, bus, "x")
		b, heardB := join(t, bus, "x")
		lost := errors.New("answer lost")
		fates := map[string]memory.Fate{
			"drop":   {Drop: true},
			"miss":   {Miss: []*memory.Adapter{b}},
			"repeat": {Repeat: 1},
			"error":  {Err: lost},
		}
		bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if f.From != a || f.Channel != "x" {
				t.Errorf("interceptor was given %v, %q", f.From, f.Channel)
			}
			return fates[string(f.Data)]
		})
		publish(t, a, "x", "drop", 0)
		publish(t, a, "x", "miss", 1)
		publish(t, a, "x", "repeat", 2)
		if _, err := a.Publish(t.Context(), "x", []byte("error")); !errors.Is(err, lost) {
			t.Errorf("Publish = %v, want the error of its fate", err)
		}
		bus.Intercept(nil)
		publish(t, a, "x", "drop", 2)
		heardA.want(t, "x miss", "x repeat", "x repeat", "x error", "x drop")
		heardB.want(t, "x repeat", "x repeat", "x error", "x drop")
	})
}

func TestDelayKeepsTheOrder(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, heard := join(t, bus, "x")
		bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if string(f.Data) == "late" {
				return memory.Fate{Delay: time.Second}
			}
			return memory.Fate{}
		})
		publish(t, a, "x", "late", 1)
		publish(t, a, "x", "next", 1)
		heard.want(t)
		time.Sleep(time.Second)
		heard.want(t, "x late", "x next")
	})
}

func TestCutLosesWhatIsDelayed(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, heard := join(t, bus, "x")
		bus.Intercept(func(context.Context, memory.Frame) memory.Fate {
			return memory.Fate{Delay: time.Hour}
		})
		publish(t, a, "x", "1", 1)
		a.Cut()
		heard.want(t, "x interrupted")
		a.Heal()
		publish(t, a, "x", "2", 1)
		time.Sleep(time.Hour)
		heard.want(t, "x restored", "x 2")
	})
}

// A gate is a receiver whose calls wait until they are released.
type gate struct {
	log
	entered, leave chan struct{}
}

func (g *gate) Receive(channel string, frame []byte) {
	g.entered <- struct{}{}
	<-g.leave
	g.log.Receive(channel, frame)
}

func TestWhatWasQueuedForAnEarlierSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, g := bus.NewAdapter(), &gate{entered: make(chan struct{}), leave: make(chan struct{})}
		if err := a.Attach(g); err != nil {
			t.Fatal(err)
		}
		for _, c := range []string{"x", "y"} {
			if err := a.Subscribe(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		publish(t, a, "y", "1", 1)
		<-g.entered
		publish(t, a, "x", "old", 1)
		if err := a.Unsubscribe(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		if err := a.Subscribe(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		publish(t, a, "x", "new", 1)
		g.leave <- struct{}{}
		<-g.entered
		g.leave <- struct{}{}
		g.want(t, "y 1", "x new")
	})
}

// attachGate attaches a gate that is subscribed to x, and in a call for frame
// 1.
func attachGate(t *testing.T, bus *memory.Bus) (*memory.Adapter, *gate) {
	t.Helper()
	a, g := bus.NewAdapter(), &gate{entered: make(chan struct{}), leave: make(chan struct{})}
	if err := errors.Join(a.Attach(g), a.Subscribe(t.Context(), "x")); err != nil {
		t.Fatal(err)
	}
	publish(t, a, "x", "1", 1)
	<-g.entered
	return a, g
}

func TestCloseWaitsForTheCallThatRuns(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, g := attachGate(t, bus)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close while the receiver is in a call: %v", err)
		}
		g.leave <- struct{}{}
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestUnsubscribeWaitsForTheCallThatRuns(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, g := attachGate(t, bus)
		publish(t, a, "x", "2", 1)
		time.AfterFunc(time.Second, func() { g.leave <- struct{}{} })
		if err := a.Unsubscribe(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		g.want(t, "x 1")
	})
}

func TestUnsubscribeEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, g := attachGate(t, bus)
		publish(t, a, "x", "2", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Unsubscribe(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Unsubscribe while the receiver is in a call: %v", err)
		}
		g.leave <- struct{}{}
		g.want(t, "x 1")
	})
}

func TestAfterBusClose(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, _ := join(t, bus, "x")
		if err := bus.Close(t.Context()); err != nil {
			t.Error(err)
		}
		late := bus.NewAdapter()
		for name, err := range map[string]error{
			"Attach":    late.Attach(new(log)),
			"Subscribe": a.Subscribe(t.Context(), "x"),
			"Health":    a.Health(),
		} {
			if !errors.Is(err, fanout.ErrClosed) {
				t.Errorf("%s after the bus was closed: %v", name, err)
			}
		}
		if err := errors.Join(late.Close(t.Context()), a.Close(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingIsLeftOfAChannel(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, _ := join(t, bus)
		for i := range 100 {
			channel := fmt.Sprint("x", i)
			if err := a.Subscribe(t.Context(), channel); err != nil {
				t.Fatal(err)
			}
			if n := bus.Subscribers(channel); n != 1 {
				t.Errorf("Subscribers(%q) = %d", channel, n)
			}
			if err := a.Unsubscribe(t.Context(), channel); err != nil {
				t.Fatal(err)
			}
		}
		if left := bus.Channels(); len(left) > 0 {
			t.Errorf("channels left: %q", left)
		}
	})
}

type count atomic.Int64

func (c *count) Receive(string, []byte) { (*atomic.Int64)(c).Add(1) }
func (c *count) Interrupted(string)     {}
func (c *count) Restored(string)        {}

// BenchmarkPublish publishes frames to one subscriber; the clock runs until the
// last one is received.
func BenchmarkPublish(b *testing.B) {
	a, c := memory.NewBus().NewAdapter(), new(count)
	if err := errors.Join(a.Attach(c), a.Subscribe(b.Context(), "x")); err != nil {
		b.Fatal(err)
	}
	frame := make([]byte, 128)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := a.Publish(b.Context(), "x", frame); err != nil {
			b.Fatal(err)
		}
	}
	for (*atomic.Int64)(c).Load() < int64(b.N) {
		runtime.Gosched()
	}
	b.StopTimer()
	if err := a.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// Hubs probe each other all the time, which is not what a test means to lose.
func TestDropNextLeavesWhatHubsTellEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, bus *memory.Bus) {
		a, heard := join(t, bus, "x")
		probe := string(wire.AppendControl(nil, 1, 2, []byte("probe")))
		bus.DropNext(1)
		publish(t, a, "x", probe, 1)
		publish(t, a, "x", "1", 0)
		publish(t, a, "x", probe, 1)
		heard.want(t, "x "+probe, "x "+probe)
	})
}
