package fanout_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// An uncounted is an adapter of a backend that does not count receivers.
type uncounted struct{ *memory.Adapter }

func (a uncounted) Publish(ctx context.Context, channel string, frame []byte) (int, error) {
	n, err := a.Adapter.Publish(ctx, channel, frame)
	return min(n, -1), err
}

func (a uncounted) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	return a.Adapter.PublishAsync(channel, frame, uncountedCompletion{done})
}

type uncountedCompletion struct{ adapter.Completion }

func (c uncountedCompletion) Complete(n int, err error) { c.Completion.Complete(min(n, -1), err) }

// A fleet is hubs on a bus that can be killed and paused.
type fleet struct {
	bus   *memory.Bus
	nodes []*memory.Adapter
	hubs  []*fanout.Hub
	pause pause
}

func newFleet(t testing.TB, n int, counts bool, o *fanout.Options) *fleet {
	f := &fleet{bus: memory.NewBus()}
	f.bus.Intercept(f.pause.intercept)
	for range n {
		f.start(t, counts, o)
	}
	time.Sleep(2 * time.Second)
	f.requireHubs(t, n)
	return f
}

func (f *fleet) start(t testing.TB, counts bool, o *fanout.Options) *fanout.Hub {
	node := f.bus.NewAdapter()
	var a fanout.Adapter = node
	if !counts {
		a = uncounted{node}
	}
	h := newHubOn(t, a, o)
	f.nodes, f.hubs = append(f.nodes, node), append(f.hubs, h)
	return h
}

// kill has nothing come from a hub any more, and nothing reach it.
func (f *fleet) kill(i int) { f.nodes[i].Cut() }

func (f *fleet) requireHubs(t testing.TB, n int) {
	t.Helper()
	for _, h := range f.hubs {
		require.Equal(t, n, h.Stats().Hubs)
	}
}

// A pause has one adapter stand still for a while: what it sends is late, and
// what comes to the hub itself.
type pause struct {
	mu    sync.Mutex
	node  *memory.Adapter
	inbox string
	until time.Time
}

func (p *pause) begin(node *memory.Adapter, h *fanout.Hub, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node, p.inbox, p.until = node, "fanout:i:{"+h.ID()+"}", time.Now().Add(d)
}

func (p *pause) intercept(ctx context.Context, f memory.Frame) memory.Fate {
	p.mu.Lock()
	node, inbox, left := p.node, p.inbox, time.Until(p.until)
	p.mu.Unlock()
	switch {
	case left <= 0:
	case f.From == node:
		select {
		case <-time.After(left):
		case <-ctx.Done():
		}
	case f.Channel == inbox:
		return memory.Fate{Delay: left}
	}
	return memory.Fate{}
}

// The bounds are those that Hub.Hubs documents.
func TestWatchedHubs(t *testing.T) {
	for name, test := range map[string]struct {
		counts bool
		within time.Duration
	}{
		"on a backend that counts":         {true, 4 * time.Second},
		"on a backend that does not count": {false, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) { testWatchedHubs(t, test.counts, test.within) })
	}
}

func testWatchedHubs(t *testing.T, counts bool, within time.Duration) {
	bubble := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
	bubble("a killed hub is gone in time, and comes back when it is heard", func(t *testing.T) {
		for i := range 20 {
			f := newFleet(t, 3, counts, nil)
			time.Sleep(time.Duration(i) * 50 * time.Millisecond)
			f.kill(2)
			time.Sleep(within)
			require.Equal(t, 2, f.hubs[0].Stats().Hubs)
			require.Equal(t, 2, f.hubs[1].Stats().Hubs)
			if i%10 != 0 {
				continue
			}
			time.Sleep(10 * time.Duration(i) * time.Second)
			f.requireHubsOf(t, 2, 0, 1)
			f.nodes[2].Heal()
			time.Sleep(3 * time.Second)
			f.requireHubs(t, 3)
		}
	})
	bubble("a hub that stands still for a second never flickers", func(t *testing.T) {
		f := newFleet(t, 3, counts, nil)
		for i := range 20 {
			f.pause.begin(f.nodes[i%3], f.hubs[i%3], time.Second)
			for range 200 {
				time.Sleep(17 * time.Millisecond)
				f.requireHubs(t, 3)
			}
		}
	})
	bubble("a hub that stands still for longer is gone, and comes back", func(t *testing.T) {
		f := newFleet(t, 3, counts, nil)
		f.pause.begin(f.nodes[2], f.hubs[2], 10*time.Second)
		time.Sleep(8 * time.Second)
		f.requireHubsOf(t, 2, 0, 1)
		time.Sleep(5 * time.Second)
		f.requireHubs(t, 3)
	})
	bubble("a hub whose link breaks for a second never flickers", func(t *testing.T) {
		f := newFleet(t, 3, counts, nil)
		for i := range 20 {
			f.nodes[i%3].Cut()
			for range 100 {
				time.Sleep(10 * time.Millisecond)
				f.requireHubs(t, 3)
			}
			f.nodes[i%3].Heal()
			time.Sleep(2 * time.Second)
			f.requireHubs(t, 3)
		}
	})
	bubble("an outage of the backend accuses nobody", func(t *testing.T) {
		f := newFleet(t, 3, counts, nil)
		f.bus.Cut()
		for range 60 {
			time.Sleep(time.Second)
			f.requireHubs(t, 3)
		}
		f.bus.Heal()
		for range 20 {
			time.Sleep(time.Second)
			f.requireHubs(t, 3)
		}
	})
	bubble("a hub that closes is gone at once", func(t *testing.T) {
		f := newFleet(t, 3, counts, nil)
		require.NoError(t, f.hubs[2].Close(t.Context()))
		synctest.Wait()
		f.requireHubsOf(t, 2, 0, 1)
		time.Sleep(5 * time.Minute)
		f.requireHubsOf(t, 2, 0, 1)
	})
	bubble("a hub that took all others for gone watches them when they are back", func(t *testing.T) {
		f := newFleet(t, 2, counts, nil)
		number, err := strconv.ParseUint(f.hubs[1].ID(), 16, 64)
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond) // hubs probe each other at quarters of a second
		verdict := (&control.Verdict{Gone: true, Hub: number}).Append(nil)
		_, err = f.nodes[1].Publish(t.Context(), "fanout:i:{"+f.hubs[0].ID()+"}", wire.AppendControl(nil, number, 0, verdict))
		require.NoError(t, err)
		synctest.Wait()
		f.requireHubsOf(t, 1, 0)
		time.Sleep(3 * time.Second)
		f.requireHubs(t, 2)
		f.kill(1)
		time.Sleep(within)
		f.requireHubsOf(t, 1, 0)
	})
	bubble("a question does not wait for a hub that is gone", func(t *testing.T) {
		f := newFleet(t, 3, counts, nil)
		for _, h := range f.hubs {
			connect(t, h, "x")
		}
		f.kill(2)
		began := time.Now()
		requireCount(t, 2, f.hubs[0].In("x"))
		require.LessOrEqual(t, time.Since(began), within)
		time.Sleep(within)
		for _, pause := range []time.Duration{0, 10 * time.Second, 30 * time.Second, 30 * time.Second, time.Minute} {
			time.Sleep(pause)
			began = time.Now()
			requireCount(t, 2, f.hubs[1].In("x"))
			require.Zero(t, time.Since(began))
		}
	})
	bubble("a hub that was found is asked", func(t *testing.T) {
		f := newFleet(t, 1, counts, nil)
		for n := 2; n < 6; n++ {
			connect(t, f.start(t, counts, nil), "x")
			synctest.Wait()
			f.requireHubs(t, n)
			requireCount(t, n-1, f.hubs[0].In("x"))
		}
	})
}

func (f *fleet) requireHubsOf(t testing.TB, n int, which ...int) {
	t.Helper()
	for _, i := range which {
		require.Equal(t, n, f.hubs[i].Stats().Hubs)
	}
}

// A PartialError says since when a hub is silent.
func TestSilentSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, false, nil)
		connect(t, f.hubs[2], "x")
		time.Sleep(time.Minute)
		f.kill(2)
		killed := time.Now()
		time.Sleep(500 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.hubs[0].In("x").Count(ctx)
		var partial *fanout.PartialError
		require.ErrorAs(t, err, &partial)
		require.Len(t, partial.Silent, 1)
		require.Equal(t, f.hubs[2].ID(), partial.Silent[0].ID)
		require.WithinRange(t, partial.Silent[0].Since, killed.Add(-1100*time.Millisecond), killed)
	})
}

func TestMembersSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := three(t, memory.NewBus())
		var want []time.Time
		for _, h := range []*fanout.Hub{a, b} {
			time.Sleep(time.Minute)
			want = append(want, time.Now())
			m, err := h.Connect(&fanout.MemberOptions{User: "ann"})
			require.NoError(t, err)
			require.NoError(t, h.Room("x").Join(within(t), m))
		}
		var got []time.Time
		for m, err := range a.In("x").Members(within(t)) {
			require.NoError(t, err)
			got = append(got, m.Since)
		}
		slices.SortFunc(got, time.Time.Compare)
		for i := range want {
			require.WithinDuration(t, want[i], got[i], 100*time.Millisecond)
		}
		for u, err := range a.In("x").Users(within(t)) {
			require.NoError(t, err)
			require.Equal(t, got[0], u.Since, "of the first connection")
		}
	})
}

// What the watching of hubs costs does not grow with their number:
// docs/scaling.md has these figures.
func TestWatchFrames(t *testing.T) {
	for _, hubs := range []int{3, 10, 30} {
		t.Run(fmt.Sprint(hubs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, hubs, true, nil)
				time.Sleep(10 * time.Second)
				var mu sync.Mutex
				frames, bytes := 0, 0
				f.bus.Intercept(func(_ context.Context, frame memory.Frame) memory.Fate {
					mu.Lock()
					defer mu.Unlock()
					frames++
					bytes += len(frame.Data)
					return memory.Fate{}
				})
				const seconds = 20
				time.Sleep(seconds * time.Second)
				mu.Lock()
				defer mu.Unlock()
				each := float64(frames) / float64(hubs) / seconds
				t.Logf("%d hubs: a hub sends %.1f frames a second, of %d bytes", hubs, each, bytes/frames)
				require.Less(t, each, 8.0)
			})
		})
	}
}

// An unsaid is an adapter whose hub says no hello, since it waits for one of
// its own channels.
type unsaid struct{ fanout.Adapter }

func (a unsaid) Subscribe(ctx context.Context, channel string) error {
	if channel != everyoneChannel {
		return a.Adapter.Subscribe(ctx, channel)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestHubThatHasNotSaidHello(t *testing.T) {
	for _, counts := range []bool{true, false} {
		// known starts such a hub, which the others know by a message.
		known := func(t *testing.T) (f *fleet, h *fanout.Hub) {
			f = newFleet(t, 2, counts, nil)
			connect(t, f.hubs[0], "r")
			var a fanout.Adapter = f.bus.NewAdapter()
			if !counts {
				a = uncounted{a.(*memory.Adapter)}
			}
			h = newHubOn(t, unsaid{a}, nil)
			require.NoError(t, h.In("r").Publish(within(t), []byte("1")))
			synctest.Wait()
			require.Equal(t, 3, f.hubs[0].Stats().Hubs)
			return f, h
		}
		requireAtOnce := func(t *testing.T, f *fleet) {
			t.Helper()
			began := time.Now()
			require.NoError(t, f.hubs[0].In("r").Join(within(t), "z"))
			require.Less(t, time.Since(began), 100*time.Millisecond)
			require.Equal(t, 2, f.hubs[0].Stats().Hubs)
		}
		t.Run(fmt.Sprintf("announces that it closes, counts=%v", counts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, h := known(t)
				require.NoError(t, h.Close(within(t)))
				synctest.Wait()
				for range 3 { // also when the others have forgotten that it has ended
					requireAtOnce(t, f)
					time.Sleep(time.Minute)
				}
			})
		})
		t.Run(fmt.Sprintf("is not waited for when it was killed, counts=%v", counts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, _ := known(t)
				began := time.Now()
				require.NoError(t, f.hubs[0].In("r").Join(within(t), "z"))
				require.Less(t, time.Since(began), 4*time.Second)
				requireAtOnce(t, f)
			})
		})
		t.Run(fmt.Sprintf("is not waited for while it only publishes, counts=%v", counts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, h := known(t)
				for range 100 {
					time.Sleep(time.Second)
					require.NoError(t, h.In("r").Publish(within(t), []byte("2")))
				}
				requireAtOnce(t, f)
			})
		})
	}
}
