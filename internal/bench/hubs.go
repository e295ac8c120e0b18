package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
)

// hubsSuite measures the cost of a copy of docs/scaling.md. For Redis, a hub
// with members in a room is a subscribed connection.
var hubsSuite = &suite{
	name:  "hubs",
	about: "what a frame costs Redis, by the number of hubs that have members in the room, and by its size",
	metrics: []metric{
		{key: "cpu", title: "Redis µs/frame", digits: 1},
		{key: "copy", title: "Redis µs/copy", digits: 2},
		{key: "out", title: "Redis out B/frame", digits: 0},
	},
	open: openHubsSuite,
}

func openHubsSuite(ctx context.Context, o *options) ([]*contest, func() error, error) {
	s, err := startServer(ctx)
	if err != nil {
		return nil, nil, err
	}
	numbers := []int{1, 10, 100, 1000}
	if o.quick {
		numbers = []int{1, 10}
	}
	var cases []*contest
	for _, n := range numbers {
		c := &contest{name: fmt.Sprintf("%d hubs", n), measure: "500 B"}
		for _, size := range []int{500, 16 << 10} {
			c.contestants = append(c.contestants, contestant{
				name: map[bool]string{true: "500 B", false: "16 KiB"}[size == 500],
				turn: func(ctx context.Context, o *options) (figures, error) { return frameToHubs(ctx, s, n, size, o.quick) },
			})
		}
		cases = append(cases, c)
	}
	return cases, s.Close, nil
}

// frameToHubs publishes frames to a channel with a number of subscribed
// connections, and waits until all of them have received all frames.
func frameToHubs(ctx context.Context, s *redistest.Server, hubs, size int, quick bool) (figures, error) {
	frames := max(50, 40_000/hubs)
	if quick {
		frames = 50
	}
	var got atomic.Int64
	closing, err := subscribeMany(ctx, s, hubs, &got)
	if err != nil {
		return nil, err
	}
	defer closing()
	client, err := connect(s)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	message := strings.Repeat("x", size)
	before, err := usageOf(ctx, s)
	if err != nil {
		return nil, err
	}
	for range frames {
		if err := client.Do(ctx, client.B().Spublish().Channel("hubs").Message(message).Build()).Error(); err != nil {
			return nil, err
		}
	}
	if err := reaches(ctx, &got, int64(frames)*int64(hubs)); err != nil {
		return nil, err
	}
	after, err := usageOf(ctx, s)
	used := after.minus(before)
	cost := used.cpu.Seconds() * 1e6 / float64(frames)
	return figures{"cpu": cost, "copy": cost / float64(hubs), "out": used.netOut / float64(frames)}, err
}

// reaches waits until a counter has a value.
func reaches(ctx context.Context, n *atomic.Int64, want int64) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	for n.Load() < want {
		select {
		case <-tick.C:
		case <-patience.C:
			return fmt.Errorf("only %d of %d arrived within a minute", n.Load(), want)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// subscribeMany subscribes connections, each with a client of its own, like
// hubs in processes of their own.
func subscribeMany(ctx context.Context, s *redistest.Server, n int, got *atomic.Int64) (closing func(), err error) {
	clients, links := make([]rueidis.Client, n), make([]rueidis.DedicatedClient, n)
	errs := make([]error, n)
	closing = func() {
		for i := range n {
			if links[i] != nil {
				links[i].Close()
			}
			if clients[i] != nil {
				clients[i].Close()
			}
		}
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if clients[i], errs[i] = connect(s); errs[i] != nil {
				return
			}
			d, _ := clients[i].Dedicate()
			links[i] = d
			d.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) { got.Add(1) }})
			errs[i] = d.Do(ctx, d.B().Ssubscribe().Channel("hubs").Build()).Error()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		closing()
		return nil, err
	}
	return closing, nil
}
