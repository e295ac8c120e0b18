package sharded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
)

// BenchmarkRetention compares the processor time that a message of 300 bytes
// costs the server: with one SPUBLISH each, as a frame of its own with and
// without a history, by 64 publishers, whose commands travel together, and by
// one alone, and in a hot room, where a frame carries many. All are measured in
// one run, in turns; the figures are medians of several rounds. A subscriber
// listens throughout.
//
//	go test -run - -bench Retention -benchtime 1x ./sharded
func BenchmarkRetention(b *testing.B) {
	const rounds, messages = 7, 30_000
	s := redistest.NewServer(b, redistest.Options{})
	kinds := []struct {
		name    string
		publish func(n int)
	}{
		{"raw-SPUBLISH", rawPublish(b, s)},
		{"unretained", roomsPublish(b, s, 64, 1, 0)},
		{"retained", roomsPublish(b, s, 64, 1, 200)},
		{"alone-unretained", roomsPublish(b, s, 1, 1, 0)},
		{"alone-retained", roomsPublish(b, s, 1, 1, 200)},
		{"hot-unretained", roomsPublish(b, s, 1, 300, 0)},
		{"hot-retained", roomsPublish(b, s, 1, 300, 200)},
	}
	took := make([][]float64, len(kinds))
	for range b.N {
		for range rounds {
			for i, kind := range kinds {
				before, err1 := s.CPU(b.Context())
				kind.publish(messages)
				after, err2 := s.CPU(b.Context())
				if err := errors.Join(err1, err2); err != nil {
					b.Fatal(err)
				}
				took[i] = append(took[i], (after-before).Seconds()*1e6/messages)
			}
		}
	}
	cost := make(map[string]float64)
	for i, kind := range kinds {
		slices.Sort(took[i])
		cost[kind.name] = took[i][len(took[i])/2]
		b.ReportMetric(cost[kind.name], kind.name+"-µs/msg")
	}
	b.ReportMetric(cost["retained"]/cost["unretained"], "retained/unretained")
	b.ReportMetric(cost["alone-retained"]/cost["alone-unretained"], "alone-retained/unretained")
	b.ReportMetric(cost["hot-retained"]/cost["raw-SPUBLISH"], "hot-retained/raw")
	b.ReportMetric(0, "ns/op") // means nothing here
}

var message300 = bytes.Repeat([]byte("x"), 300)

// inTurn calls publish n times, from several publishers in turn: each waits for
// the one before.
func inTurn(publishers, n int, publish func(publisher int)) {
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for range n / publishers {
				publish(p)
			}
		})
	}
	wg.Wait()
}

// rawPublish publishes with one SPUBLISH a message, to a subscriber.
func rawPublish(b *testing.B, s *redistest.Server) func(n int) {
	client, listener := s.Client(b), s.Client(b)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	ready := make(chan struct{})
	wg.Go(func() {
		dedicated, release := listener.Dedicate()
		defer release()
		dedicated.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {}})
		dedicated.Do(ctx, dedicated.B().Ssubscribe().Channel("raw").Build())
		close(ready)
		<-ctx.Done()
	})
	b.Cleanup(func() { cancel(); wg.Wait() })
	<-ready
	message := string(message300)
	return func(n int) {
		inTurn(64, n, func(int) {
			if err := client.Do(ctx, client.B().Spublish().Channel("raw").Message(message).Build()).Error(); err != nil {
				b.Error(err)
			}
		})
	}
}

// roomsPublish publishes from one hub to rooms in which another has a member.
func roomsPublish(b *testing.B, s *redistest.Server, rooms, publishers, keep int) func(n int) {
	o := &fanout.Options{Room: func(string) fanout.RoomOptions { return fanout.RoomOptions{Retain: fanout.Retention{Messages: keep}} }}
	var hubs []*fanout.Hub
	for range 2 {
		a, err := sharded.New(s.Client(b), nil)
		if err != nil {
			b.Fatal(err)
		}
		h, err := fanout.New(a, o)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { h.Close(context.Background()) })
		hubs = append(hubs, h)
	}
	m, err := hubs[1].Connect(nil)
	if err != nil {
		b.Fatal(err)
	}
	var names []string
	for i := range rooms {
		names = append(names, fmt.Sprint("bench ", rooms, publishers, keep, " ", i)) // no two kinds share rooms
		if err := hubs[1].Room(names[i]).Join(within(b), m); err != nil {
			b.Fatal(err)
		}
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]fanout.Message, 64)
		for {
			if _, err := m.ReceiveBatch(context.Background(), buf); errors.Is(err, fanout.ErrClosed) {
				return
			}
		}
	})
	b.Cleanup(func() { m.Close(); reading.Wait() })
	return func(n int) {
		inTurn(rooms*publishers, n, func(p int) {
			if err := hubs[0].Room(names[p%rooms]).Publish(context.Background(), message300); err != nil {
				b.Error(err)
			}
		})
	}
}
