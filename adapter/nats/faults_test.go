package nats_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/stretchr/testify/require"
)

// What happens to servers while people talk. After each of these every message
// was received or reported missed, by every member, and nothing came twice;
// kept rooms are in one order and lack nothing; and service has resumed by
// itself.
var faults = []struct {
	name    string
	servers int
	happen  func(t *testing.T, f *fleet, w *world)
}{
	{"a server is killed and comes back", 1, kill},
	{"one of three servers is killed and comes back", 3, kill},
	{"the leader of a stream is killed and comes back", 3, killLeader},
	{"one of three servers is paused", 3, pauseServer},
	{"one of three servers is cut off", 3, cutServer},
	{"the routes between servers are reset", 3, resetRoutes},
	{"a hub is cut off", 1, cutHub},
	{"a hub's connection is reset", 3, resetHub},
	{"leaders step down", 3, stepDown},
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t, fault.servers, nil)
			w := newWorld(t, f, 3, []string{"a", "b", "c", "kept a", "kept b"})
			fault.happen(t, f, w)
			w.resumes()
			w.verdict()
		})
	}
}

// last is the server that faults befall: hub 2 is connected to it.
func (f *fleet) last() int { return len(f.servers) - 1 }

func kill(t *testing.T, f *fleet, w *world) {
	i := f.last()
	f.stop(i)
	<-time.After(time.Second) // the fault is its length
	f.start(i)
	f.awaitReady()
}

func killLeader(t *testing.T, f *fleet, w *world) {
	i := f.leader(streamOf("fanout:r:{kept a}"))
	require.GreaterOrEqual(t, i, 0)
	f.stop(i)
	<-time.After(3 * time.Second)
	f.start(i)
	f.awaitReady()
}

// pauseServer makes a server silent for its clients and for the other servers.
func pauseServer(t *testing.T, f *fleet, w *world) {
	i := f.last()
	f.cut(i, true)
	w.proxies[i].Hold(true)
	<-time.After(4 * time.Second)
	f.cut(i, false)
	w.proxies[i].Hold(false)
}

// cutServer cuts a server off from the others. Its clients don't notice.
func cutServer(t *testing.T, f *fleet, w *world) {
	f.cut(f.last(), true)
	<-time.After(5 * time.Second)
	f.cut(f.last(), false)
}

func resetRoutes(t *testing.T, f *fleet, w *world) {
	for range 2 {
		for _, p := range f.routes {
			p.Reset()
		}
		w.resumes()
	}
}

func cutHub(t *testing.T, f *fleet, w *world) {
	before := w.hubs[0].Stats().Interruptions
	w.proxies[0].Hold(true)
	w.until("the hub notices", func() bool { return w.hubs[0].Stats().Interruptions > before })
	w.proxies[0].Hold(false)
}

func resetHub(t *testing.T, f *fleet, w *world) {
	for range 2 {
		before := w.hubs[0].Stats().Interruptions
		w.proxies[0].Reset()
		w.until("the hub notices", func() bool { return w.hubs[0].Stats().Interruptions > before })
		w.resumes()
	}
}

func stepDown(t *testing.T, f *fleet, w *world) {
	for range 2 {
		for _, room := range []string{"kept a", "kept b"} {
			require.NoError(t, f.stepDown(within(t), streamOf("fanout:r:{"+room+"}")))
		}
		w.resumes()
	}
}

// hears publishes until a member hears: servers that have just been started may
// not know each other's subscriptions yet.
func hears(t *testing.T, from *fanout.Hub, m *fanout.Member) {
	require.Eventually(t, func() bool {
		require.NoError(t, from.Room("room").Publish(within(t), []byte("heard")))
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		for {
			_, err := m.Receive(ctx)
			if err == nil {
				return true
			}
			if !errors.As(err, new(*fanout.GapError)) {
				return false
			}
		}
	}, 20*time.Second, time.Millisecond)
}

// Where two servers have lost each other no client notices. What is lost then
// is reported even if nothing more is said.
func TestLostTail(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3, nil)
	from := newHub(t, newAdapter(t, f.addr(0), nats.Options{}))
	to := newHub(t, newAdapter(t, f.addr(2), nats.Options{}))
	m, err := to.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, to.Room("room").Join(within(t), m))
	hears(t, from, m)

	f.cut(2, true)
	f.until("the servers have lost each other", func() bool { return f.servers[0].NumRoutes() == 1 })
	require.NoError(t, from.Room("room").Publish(within(t), []byte("lost")))
	f.cut(2, false)
	msg, err := m.Receive(within(t))
	gap := new(fanout.GapError)
	require.True(t, errors.As(err, &gap), "want a gap, got %q and %v", msg.Data, err)
}

// A publisher that dies cannot say how far it came.
func TestDeadPublisher(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, nil)
	p := newProxy(t, f.addr(0))
	from := newHub(t, newAdapter(t, p.Addr(), nats.Options{}))
	to := newHub(t, newAdapter(t, f.addr(0), nats.Options{}))
	m, err := to.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, to.Room("room").Join(within(t), m))
	hears(t, from, m)

	p.Hold(true)
	before := to.Stats().Interruptions
	require.Eventually(t, func() bool { return to.Stats().Interruptions > before }, 20*time.Second, 10*time.Millisecond)
	p.Hold(false)
}

// However many rooms there are, the server has a subject for each partition.
func TestManyRooms(t *testing.T) {
	f := startFleet(t, 1, nil)
	before := f.servers[0].NumSubscriptions()
	h := newHub(t, newAdapter(t, f.addr(0), nats.Options{}))
	m, err := h.Connect(nil)
	require.NoError(t, err)
	for i := range 2000 {
		require.NoError(t, h.Room(fmt.Sprint("room", i)).Join(within(t), m))
	}
	const others = 5 // what hubs say to each other, and answers
	require.LessOrEqual(t, f.servers[0].NumSubscriptions()-before, uint32(64+others))
	require.NoError(t, h.Health(t.Context()))
}

// A partition stays subscribed for a while, and then no longer.
func TestLinger(t *testing.T) {
	f := startFleet(t, 1, nil)
	a := attached(t, newAdapter(t, f.addr(0), nats.Options{Linger: time.Millisecond}))
	connected(t, a)
	require.NoError(t, a.Subscribe(within(t), "room"))
	with := f.servers[0].NumSubscriptions()
	require.NoError(t, a.Unsubscribe(within(t), "room"))
	f.until("the subscription is gone", func() bool { return f.servers[0].NumSubscriptions() == with-1 })
	require.NoError(t, a.Subscribe(within(t), "room"))
	require.Equal(t, with, f.servers[0].NumSubscriptions())
}

// A blocked receiver does not return before it is told to.
type blocked struct {
	deaf
	gate                            chan struct{}
	received, interrupted, restored atomic.Int64
}

func (b *blocked) Receive(string, []byte) { b.received.Add(1); <-b.gate }
func (b *blocked) Interrupted(string)     { b.interrupted.Add(1) }
func (b *blocked) Restored(string)        { b.restored.Add(1) }

// What a client drops, because it reads too slowly, is reported.
func TestSlowConsumer(t *testing.T) {
	f := startFleet(t, 1, nil)
	slow := newAdapter(t, f.addr(0), nats.Options{})
	b := &blocked{gate: make(chan struct{})}
	require.NoError(t, slow.Attach(b))
	t.Cleanup(func() { require.NoError(t, slow.Close(context.Background())) })
	require.NoError(t, slow.Subscribe(within(t), "room"))
	from := attached(t, newAdapter(t, f.addr(0), nats.Options{}))
	connected(t, from)
	const frames = 20_000 // more than the client keeps for a reader that is slow
	for range frames {
		_, err := from.Publish(within(t), "room", []byte("frame"))
		require.NoError(t, err)
	}
	close(b.gate)
	f.until("it is told", func() bool { return b.interrupted.Load() > 0 && b.restored.Load() == b.interrupted.Load() })
	require.Less(t, b.received.Load(), int64(frames))
	f.until("all is well again", func() bool { return slow.Health() == nil })
}
