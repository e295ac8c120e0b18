package fanout_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// BenchmarkPresenceChurn has 10,000 members a second join or leave a room with
// presence, of 300 who receive all that comes, and measures what those receive
// that stay. It takes 5 s of real time. TestPresenceFrames does the same with a
// clock that does not run while there is work.
//
//	go test -run '^$' -bench PresenceChurn -benchtime 1x .
func BenchmarkPresenceChurn(b *testing.B) {
	for _, hubs := range []int{1, 3} {
		b.Run(fmt.Sprint("hubs=", hubs), func(b *testing.B) {
			for b.Loop() {
				churn(b, hubs, 300, 10_000, 5*time.Second)
			}
		})
	}
}

// A churner replaces members of a hub.
type churner struct {
	hub     *fanout.Hub
	crowd   int
	members []*fanout.Member
	number  int
	reading *sync.WaitGroup
}

// come has another member join, and receive until it ends.
func (c *churner) come(b testing.TB) *fanout.Member {
	c.number++
	m, err := c.hub.Connect(&fanout.MemberOptions{User: fmt.Sprint(c.crowd, " ", c.number)})
	require.NoError(b, err)
	require.NoError(b, c.hub.Room("x").Join(b.Context(), m))
	c.reading.Go(func() {
		for msg, err := range m.Messages(context.Background()) {
			if err == nil {
				msg.Presence()
			}
		}
	})
	return m
}

// run replaces members at a rate, and returns the number of those that left or
// came.
func (c *churner) run(b testing.TB, rate int, d time.Duration) (changes int) {
	began := time.Now()
	for {
		passed := time.Since(began)
		if passed >= d {
			return changes
		}
		for due := int(passed.Seconds() * float64(rate)); changes < due && time.Since(began) < d; changes += 2 {
			i := c.number % len(c.members)
			require.NoError(b, c.members[i].Close())
			c.members[i] = c.come(b)
		}
		time.Sleep(time.Millisecond) // it sets the pace
	}
}

func churn(b *testing.B, hubs, members, rate int, d time.Duration) {
	f := &fleet{bus: memory.NewBus()}
	options := watched(fanout.RoomOptions{Grace: -1})
	var reading sync.WaitGroup
	var churners []*churner
	var notices []*atomic.Int64
	const crowds = 12 // of members, each of which is churned by itself
	for range hubs {
		h := f.start(b, true, options)
		for range crowds / hubs {
			c := &churner{hub: h, crowd: len(churners), reading: &reading}
			for range members / crowds {
				c.members = append(c.members, c.come(b))
			}
			churners = append(churners, c)
		}
		watcher, n := connect(b, h, "x"), new(atomic.Int64)
		notices = append(notices, n)
		reading.Go(func() {
			for msg, err := range watcher.Messages(context.Background()) {
				if _, ok := msg.Presence(); ok && err == nil {
					n.Add(1)
				}
			}
		})
	}
	time.Sleep(3 * time.Second) // what is announced of the beginning
	frames, bytes := f.traffic()
	for _, n := range notices {
		n.Store(0)
	}
	before, changes := processorTime(), new(atomic.Int64)
	inParallel(crowds, func(i int) { changes.Add(int64(churners[i].run(b, rate/crowds, d))) })
	took := processorTime() - before
	most := int64(0)
	for _, n := range notices {
		most = max(most, n.Load())
	}
	seconds, n := d.Seconds(), float64(changes.Load())
	b.ReportMetric(n/seconds, "changes/s")
	b.ReportMetric(float64(most)/seconds, "notices/s")
	b.ReportMetric(float64(frames())/seconds/float64(hubs), "frames/s/hub")
	b.ReportMetric(float64(bytes())/n, "B/change")
	b.ReportMetric(float64(took.Microseconds())/n, "µs/change")
	require.Less(b, float64(most), 20*seconds)
	for _, h := range f.hubs {
		require.NoError(b, h.Close(within(b)))
	}
	reading.Wait()
}

// processorTime returns the processor time that this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
