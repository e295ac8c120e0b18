package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// BenchmarkCatchUp measures a room with a history that is busy while a link
// breaks for 50 ms, with and without a member that does not read: how late the
// messages reach members that keep up, and how long a Join takes meanwhile.
//
//	go test -run '^$' -bench CatchUp -benchtime 1x .
func BenchmarkCatchUp(b *testing.B) {
	for _, load := range []struct{ window, rate int }{{256, 20_000}, {16, 2_000}} {
		for _, stuck := range []bool{false, true} {
			b.Run(fmt.Sprintf("window=%d/rate=%d/stuck=%v", load.window, load.rate, stuck), func(b *testing.B) {
				for b.Loop() {
					f := catchUpUnderLoad(b, load.window, load.rate, stuck)
					b.ReportMetric(float64(f.quantile(0.5))/1e6, "p50-ms")
					b.ReportMetric(float64(f.quantile(0.99))/1e6, "p99-ms")
					b.ReportMetric(float64(f.join)/1e6, "slowest-join-ms")
					b.ReportMetric(float64(f.lost), "lost")
				}
			})
		}
	}
}

// figures of a load.
type figures struct {
	mu    sync.Mutex
	late  []time.Duration // of each message at each reader
	join  time.Duration   // the slowest
	lost  int
	reads uint64
}

func (f *figures) add(d time.Duration) {
	f.mu.Lock()
	f.late = append(f.late, d)
	f.mu.Unlock()
}

func (f *figures) quantile(q float64) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.late) == 0 {
		return time.Hour
	}
	slices.Sort(f.late)
	return f.late[min(len(f.late)-1, int(q*float64(len(f.late))))]
}

// stream publishes rate messages a second, each of which says when it was due,
// until ctx ends.
func stream(ctx context.Context, b testing.TB, r *fanout.Room, rate int) (published int) {
	begun := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		due := begun.Add(time.Duration(n) * time.Second / time.Duration(rate))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait) // the rate is the load
		}
		err := r.PublishAsync(context.WithoutCancel(ctx), strconv.AppendInt(nil, time.Now().UnixNano(), 10), nil)
		if err != nil {
			b.Error(err)
			return n
		}
		published++
	}
	return published
}

// listen has m receive until ctx ends, as fast as it can.
func (f *figures) listen(ctx context.Context, m *fanout.Member) {
	buf := make([]fanout.Message, 64)
	for {
		n, err := m.ReceiveBatch(ctx, buf)
		if ctx.Err() != nil {
			return
		}
		if gap, ok := errors.AsType[*fanout.GapError](err); ok {
			f.mu.Lock()
			f.lost += gap.Missed
			f.mu.Unlock()
		}
		now := time.Now().UnixNano()
		for _, msg := range buf[:n] {
			sent, _ := strconv.ParseInt(string(msg.Data), 10, 64)
			f.add(time.Duration(now - sent))
		}
	}
}

func catchUpUnderLoad(b testing.TB, window, rate int, stuck bool) *figures {
	bus := memory.NewBus()
	o := keeping(100_000)
	o.Window.Messages = window
	node := bus.NewAdapter()
	publisher, hub := newHub(b, bus, o), newHubOn(b, node, o)
	if stuck {
		connect(b, hub, "x") // and does not read
	}
	f := new(figures)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 4 {
		m := connect(b, hub, "x")
		all.Go(func() { f.listen(ctx, m) })
	}
	all.Go(func() { stream(ctx, b, publisher.Room("x"), rate) })
	time.Sleep(200 * time.Millisecond)
	node.CutSubscriber()
	time.Sleep(50 * time.Millisecond)
	node.Heal()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		m, err := hub.Connect(nil)
		require.NoError(b, err)
		joining, stop := context.WithTimeout(ctx, 5*time.Second)
		begun := time.Now()
		_ = hub.Room("x").Join(joining, m)
		f.join = max(f.join, time.Since(begun))
		stop()
		_ = m.Close()
	}
	cancel()
	all.Wait()
	f.reads = hub.Stats().Reads
	return f
}

// BenchmarkResumeBusy measures how long Resume takes on a hub whose window is
// tiny while three publishers are busy, and how late what follows comes.
func BenchmarkResumeBusy(b *testing.B) {
	for b.Loop() {
		f, hung := resumeBusy(b)
		b.ReportMetric(float64(f.quantile(0.99))/1e6, "p99-ms")
		b.ReportMetric(float64(f.join)/1e6, "slowest-resume-ms")
		b.ReportMetric(float64(hung), "hung")
		b.ReportMetric(float64(f.lost), "lost")
		b.ReportMetric(float64(f.reads), "reads")
	}
}

func resumeBusy(b testing.TB) (f *figures, hung int) {
	bus := memory.NewBus()
	o := keeping(100_000)
	o.Window.Messages = 8
	publisher, hub := newHub(b, bus, o), newHub(b, bus, o)
	bus.InterceptReads(func(context.Context, string, adapter.Query) error {
		time.Sleep(3 * time.Millisecond) // the way to a server and back
		return nil
	})
	publish(b, publisher.Room("x"), 1, 100)
	at := position(b, publisher.Room("x"))
	ctx, cancel := context.WithCancel(context.Background())
	f = new(figures)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { stream(ctx, b, publisher.Room("x"), 5000) })
	}
	time.Sleep(500 * time.Millisecond)
	var timedOut atomic.Int32
	var resumed sync.WaitGroup
	for range 8 {
		m := connect(b, hub)
		resumed.Go(func() {
			resuming, stop := context.WithTimeout(ctx, 5*time.Second)
			defer stop()
			begun := time.Now()
			if err := hub.Room("x").Resume(resuming, m, at); err != nil {
				timedOut.Add(1)
			} else {
				all.Go(func() { f.listen(ctx, m) })
			}
			f.mu.Lock()
			f.join = max(f.join, time.Since(begun))
			f.mu.Unlock()
		})
	}
	resumed.Wait()
	f.mu.Lock()
	f.late = nil
	f.mu.Unlock()
	time.Sleep(300 * time.Millisecond)
	f.mu.Lock()
	f.late = nil // what was said before they came is late by nature
	f.mu.Unlock()
	time.Sleep(time.Second)
	cancel()
	all.Wait()
	f.reads = hub.Stats().Reads
	return f, int(timedOut.Load())
}
