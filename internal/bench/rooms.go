package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
)

// roomsSuite has one process in very many rooms, like a server for games or
// documents.
var roomsSuite = &suite{
	name:  "rooms",
	about: "very many rooms in one process, over a cluster of three: joining them, and having them back after a break",
	metrics: []metric{
		{key: "join", title: "rooms joined/s", more: true},
		{key: "room", title: "B/room"},
		{key: "redis", title: "servers' B/room"},
		{key: "back", title: "ms until back"},
		{key: "servers", title: "of it servers' CPU ms"},
		{key: "own", title: "own CPU ms"},
	},
	open: openRooms,
}

func openRooms(ctx context.Context, o *options) ([]*contest, func() error, error) {
	n := 100_000
	if o.quick {
		n = 1_000
	}
	c, err := startCluster(ctx, 3)
	if err != nil {
		return nil, nil, err
	}
	e := estate{cluster: c, rooms: roomNames(n)}
	list := &contest{
		name:    fmt.Sprintf("%d rooms", n),
		measure: "raw rueidis",
		contestants: []contestant{
			{"fanout", func(ctx context.Context, _ *options) (figures, error) { return e.fanout(ctx) }},
			{"raw rueidis", func(ctx context.Context, _ *options) (figures, error) { return e.raw(ctx) }},
		},
		targets: []target{
			{of: "fanout", key: "back", atMost: 1000},
			{of: "fanout", key: "room", atMost: 600},
		},
	}
	if e.plainlyDialed(ctx) {
		list.contestants = append(list.contestants, contestant{
			"centrifuge broker",
			func(ctx context.Context, _ *options) (figures, error) { return e.centrifuge(ctx) },
		})
	}
	return []*contest{list}, c.Close, nil
}

// An estate is the rooms that a contestant has to join, and their servers.
type estate struct {
	cluster *redistest.Cluster
	rooms   []string
}

// roomJoiners is the number of concurrent joins. Each joiner waits until the
// servers have confirmed one room before it joins the next.
const roomJoiners = 256

// eachRoom has join called for all rooms, and returns how many rooms a second
// were joined.
func (e *estate) eachRoom(join func(room int) error) (rate float64, err error) {
	var next atomic.Int64
	start := time.Now()
	err = inParallel(roomJoiners, func(int) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(e.rooms) {
				return nil
			}
			if err := join(i); err != nil {
				return fmt.Errorf("join %s: %w", e.rooms[i], err)
			}
		}
	})
	return float64(len(e.rooms)) / time.Since(start).Seconds(), err
}

// outage has all nodes close the connections with subscriptions, all at once,
// and returns how long it takes until all rooms are back, for which await
// waits, and the processor time of that.
func (e *estate) outage(ctx context.Context, await func(context.Context) (end time.Time, err error)) (figures, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	before, err := usageOf(ctx, e.cluster)
	if err != nil {
		return nil, err
	}
	own, start := ownCPU(), time.Now()
	nodes := e.cluster.Nodes()
	killed := inParallel(len(nodes), func(i int) error {
		_, err := nodes[i].KillClients(ctx, "pubsub")
		return err
	})
	if killed != nil {
		return nil, killed
	}
	end, err := await(ctx)
	if err != nil {
		return nil, fmt.Errorf("waiting until all rooms are back: %w", err)
	}
	used := ownCPU() - own
	after, err := usageOf(ctx, e.cluster)
	return figures{
		"back":    milliseconds(end.Sub(start)),
		"servers": milliseconds(after.minus(before).cpu),
		"own":     milliseconds(used),
	}, err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A countdown counts rooms.
type countdown struct {
	left atomic.Int64
	end  chan time.Time // capacity 1
}

func newCountdown() *countdown { return &countdown{end: make(chan time.Time, 1)} }

func (c *countdown) begin(n int) { c.left.Store(int64(n)) }

func (c *countdown) one() {
	if c.left.Add(-1) == 0 {
		c.end <- time.Now()
	}
}

func (c *countdown) wait(ctx context.Context) (end time.Time, err error) {
	select {
	case end = <-c.end:
		return end, nil
	case <-ctx.Done():
		return end, fmt.Errorf("%d are missing: %w", c.left.Load(), context.Cause(ctx))
	}
}

// inParallel calls f for 0 to n-1, each in a goroutine, and waits for all.
func inParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() { errs[i] = f(i) })
	}
	work.Wait()
	return errors.Join(errs...)
}
