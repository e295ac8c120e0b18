package fanout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/wire"
)

// BenchmarkFanout is the cost of delivering within a process: one room, members
// that are goroutines of their own, and no backend. An operation is a message
// that all members have received.
//
// In a burst many messages are published one after the other before the last of
// them is awaited, as in a live room; in lockstep each is awaited by all before
// the next, so every delivery pays for waking a goroutine.
//
// ns/delivery is the time of the whole by messages and members, on all cores;
// allocs/delivery counts everything, the publisher's share too.
func BenchmarkFanout(b *testing.B) {
	for _, mode := range []struct {
		name  string
		burst int
	}{{"burst", 128}, {"lockstep", 1}} {
		for _, members := range []int{1, 100, 1_000, 10_000} {
			b.Run(fmt.Sprintf("%s/members=%d", mode.name, members), func(b *testing.B) {
				benchmarkFanout(b, members, mode.burst)
			})
		}
	}
}

func benchmarkFanout(b *testing.B, members, burst int) {
	h, err := fanout.New(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	defer h.Close(ctx)
	room := h.Room("bench")
	var left atomic.Int64 // deliveries of the burst that are still to come
	all := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for range members {
		m, _ := h.Connect(nil)
		if err := room.Join(ctx, m); err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			buf := make([]fanout.Message, 64)
			for {
				n, err := m.ReceiveBatch(ctx, buf)
				if err != nil {
					return
				}
				if left.Add(int64(-n)) == 0 {
					all <- struct{}{}
				}
			}
		})
	}
	data := make([]byte, 450)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for sent := 0; b.Loop(); {
		if sent == 0 {
			left.Store(int64(burst * members))
		}
		if err := room.Publish(ctx, data); err != nil {
			b.Fatal(err)
		}
		if sent++; sent == burst {
			<-all
			sent = 0
		}
	}
	runtime.ReadMemStats(&after)
	deliveries := float64(b.N) * float64(members)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/deliveries, "ns/delivery")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/deliveries, "allocs/delivery")
	b.ReportMetric(0, "ns/op") // says nothing: it grows with the members
	h.Close(ctx)
	wg.Wait()
}

// BenchmarkPublish is the cost of publishing to a room without a backend, by
// publishers in parallel, with one member who reads.
func BenchmarkPublish(b *testing.B) {
	h, err := fanout.New(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	defer h.Close(ctx)
	m, _ := h.Connect(nil)
	if err := h.Room("bench").Join(ctx, m); err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]fanout.Message, 64)
		for {
			if _, err := m.ReceiveBatch(ctx, buf); errors.Is(err, fanout.ErrClosed) {
				return
			}
		}
	})
	data := make([]byte, 450)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := h.Room("bench").Publish(ctx, data); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	m.Close()
	wg.Wait()
}

// BenchmarkReceive is the cost of a frame from the backend up to a room's log,
// with one member who reads, by messages in a frame.
func BenchmarkReceive(b *testing.B) {
	for _, test := range []struct {
		name     string
		messages int
		message  wire.Message
	}{
		{"messages=1", 1, wire.Message{}},
		{"messages=100", 100, wire.Message{}},
		{"except=100", 100, wire.Message{Except: []string{"0123456789abcdef-1"}, ExceptRooms: []string{"quiet"}}},
	} {
		b.Run(test.name, func(b *testing.B) { benchmarkReceive(b, test.messages, test.message) })
	}
}

func benchmarkReceive(b *testing.B, messages int, message wire.Message) {
	message.Data = make([]byte, 128)
	body := bytes.Repeat(wire.AppendMessage(nil, &message), messages)
	a := &handAdapter{}
	h, err := fanout.New(a, nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	defer h.Close(ctx)
	m, _ := h.Connect(nil)
	if err := h.Room("bench").Join(ctx, m); err != nil {
		b.Fatal(err)
	}
	buf := make([]fanout.Message, messages)
	seq := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		frame := wire.AppendHeader(make([]byte, 0, len(body)+wire.Overhead), &wire.Header{Hub: 7, Stream: 1, Seq: seq, Count: messages})
		seq += uint64(messages)
		a.r.Receive("fanout:r:{bench}", append(frame, body...))
		for got := 0; got < messages; {
			n, err := m.ReceiveBatch(ctx, buf)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*messages), "ns/message")
}

// A handAdapter hands over what the benchmark gives its receiver.
type handAdapter struct{ r fanout.Receiver }

func (a *handAdapter) Attach(r fanout.Receiver) error                     { a.r = r; return nil }
func (*handAdapter) Subscribe(context.Context, string) error              { return nil }
func (*handAdapter) Unsubscribe(context.Context, string) error            { return nil }
func (*handAdapter) Publish(context.Context, string, []byte) (int, error) { return 1, nil }
func (*handAdapter) Close(context.Context) error                          { return nil }
