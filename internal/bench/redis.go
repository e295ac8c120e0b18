package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var redisSuite = &suite{
	name:  "redis",
	about: fmt.Sprintf("publishing and receiving through a single Redis server, messages of %d B", messageLength),
	metrics: []metric{
		{key: "published", title: "published/s", more: true},
		{key: "received", title: "received/s", more: true},
		{key: "lost", title: "lost %", digits: 2},
		{key: "p50", title: "p50 ms", digits: 2},
		{key: "p99", title: "p99 ms", digits: 2},
		{key: "commands", title: "commands/msg", digits: 3},
		{key: "in", title: "Redis in B/msg"},
		{key: "out", title: "Redis out B/msg"},
		{key: "servers", title: "Redis µs/msg", digits: 2},
		{key: "own", title: "own CPU µs/msg", digits: 2},
	},
	open: openRedis,
}

// A redisEntrant is a contestant before it is set up.
type redisEntrant struct {
	name  string
	open  redisOpener
	flood crowd // the crowd with which it publishes fastest without waiting
	lossy bool  // it may drop messages, and their share is shown; otherwise a loss is an error
}

// redisEntrants returns the contestants with a single server. Publishers that
// do not wait have 4,096 messages in flight, the most that Centrifuge's
// receiver is made for. A peer that cannot have several in flight has a
// goroutine for each. (DoMulti gets no faster above half of that.)
func redisEntrants(o *options) []redisEntrant {
	one, many := crowdOf(4096), crowd{publishers: 64, batch: 64}
	if o.quick {
		one.publishers, many.publishers = 64, 2
	}
	return []redisEntrant{
		{name: "fanout", open: openHubs(shardedAdapter), flood: many},
		{name: "fanout, late flush", open: openHubs(shardedAdapter, lateFlush), flood: many},
		{name: "raw rueidis", open: openRaw(shardedCommands), flood: one},
		{name: "raw, late flush", open: openRaw(shardedCommands, lateFlush), flood: one},
		{name: rawBatches, open: openRaw(shardedCommands), flood: many},
		{name: "centrifuge broker", open: openCentrifuge, flood: one, lossy: true},
	}
}

// rawBatches is the contestant that sends batches. It does not take part where
// each message is awaited.
const rawBatches = "raw DoMulti(64)"

func openRedis(ctx context.Context, o *options) ([]*contest, func() error, error) {
	s, err := startServer(ctx)
	if err != nil {
		return nil, nil, err
	}
	sizes, ratios := []int{1, 100, 10_000}, []float64{2, 1.5, 0.9}
	waiting := crowdOf(256)
	if o.quick {
		sizes, waiting.publishers = []int{1, 5, 50}, 16
	}
	var cases []*contest
	for i, rooms := range sizes {
		w := &redisWork{servers: s, rooms: rooms, waiting: waiting}
		cases = append(cases, w.waits(o, ratios[i]), w.floods(o), w.halfLoad(o))
	}
	// In a hot room a frame carries many messages, which is its purpose.
	cases[0].targets = append(cases[0].targets, target{of: "raw rueidis", key: "servers", to: "fanout", atLeast: 5})
	return cases, s.Close, nil
}

// redisWork is the work of the cases with a number of rooms.
type redisWork struct {
	servers servers
	rooms   int
	waiting crowd

	once    sync.Once
	full    float64 // messages a second of raw rueidis when publishers wait
	failure error
}

func (w *redisWork) name(what string) string {
	if w.rooms == 1 {
		return "1 room, " + what
	}
	return fmt.Sprintf("%d rooms, %s", w.rooms, what)
}

// waits is the case of publishers that wait until a message is accepted before
// they publish the next one.
func (w *redisWork) waits(o *options, ratio float64) *contest {
	c := &contest{name: w.name("publishers wait"), measure: "raw rueidis", targets: []target{
		{of: "fanout", key: "published", to: "raw rueidis", atLeast: ratio},
		{of: "fanout", key: "received", to: "centrifuge broker", atLeast: 1.5},
	}}
	for _, e := range redisEntrants(o) {
		if e.name != rawBatches {
			c.contestants = append(c.contestants, contestant{e.name, w.flow(e, w.waiting)})
		}
	}
	return c
}

// floods is the case of publishers that have many messages in flight.
func (w *redisWork) floods(o *options) *contest {
	c := &contest{name: w.name("publishers don't wait"), measure: rawBatches, targets: []target{
		{of: "fanout", key: "published", to: rawBatches, atLeast: 1.5},
		{of: "fanout", key: "received", to: "centrifuge broker", atLeast: 1.5},
	}}
	for _, e := range redisEntrants(o) {
		c.contestants = append(c.contestants, contestant{e.name, w.flow(e, e.flood)})
	}
	return c
}

// halfLoad is the case of messages at a steady rate, the same for all: half of
// what raw rueidis can do.
func (w *redisWork) halfLoad(o *options) *contest {
	c := &contest{name: w.name("half load"), measure: "raw rueidis", targets: []target{
		{of: "fanout", key: "p99", to: "raw rueidis", atMost: 1.3},
	}}
	for _, e := range redisEntrants(o) {
		if e.name != rawBatches {
			c.contestants = append(c.contestants, contestant{e.name, w.steady(e)})
		}
	}
	return c
}

// turn sets up an entrant, has it work, and takes it down.
func (w *redisWork) turn(ctx context.Context, e redisEntrant, t *tally, work func(p redisPeer) (sample, error)) (m sample, err error) {
	p, err := e.open(ctx, w.servers, w.rooms, t)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	m, err = work(p)
	if err == nil && m.lost > 0 && !e.lossy {
		err = fmt.Errorf("%d of %d messages are lost", m.lost, m.messages)
	}
	return m, err
}

// flow has a crowd publish as fast as it can.
func (w *redisWork) flow(e redisEntrant, c crowd) func(context.Context, *options) (figures, error) {
	return func(ctx context.Context, o *options) (figures, error) {
		t := new(tally)
		m, err := w.turn(ctx, e, t, func(p redisPeer) (sample, error) {
			if m, err := measure(ctx, onRedis{w.servers}, t, c.publisher(ctx, p, w.rooms, o.duration/10)); err != nil { // to warm up
				return m, err
			}
			return measure(ctx, onRedis{w.servers}, t, c.publisher(ctx, p, w.rooms, o.duration))
		})
		return m.figures(), err
	}
}

// steady has messages published at half of the full rate.
func (w *redisWork) steady(e redisEntrant) func(context.Context, *options) (figures, error) {
	return func(ctx context.Context, o *options) (figures, error) {
		w.once.Do(func() { w.full, w.failure = w.fullRate(ctx, o) })
		if w.failure != nil {
			return nil, w.failure
		}
		rate := w.full / 2
		n := int64(rate * o.duration.Seconds())
		warm, from := n/10, int64(0)
		t := &tally{delays: make([]time.Duration, warm+n)}
		m, err := w.turn(ctx, e, t, func(p redisPeer) (sample, error) {
			publish := func(n int64) func() (int64, error) {
				return func() (int64, error) { return n, publishAt(ctx, p, w.rooms, rate, n) }
			}
			if m, err := measure(ctx, onRedis{w.servers}, t, publish(warm)); err != nil { // to warm up
				return m, err
			}
			from = t.count.Load()
			return measure(ctx, onRedis{w.servers}, t, publish(n))
		})
		if err != nil {
			return nil, err
		}
		f := m.figures()
		f["p50"], f["p99"] = t.quantile(from, 0.5), t.quantile(from, 0.99)
		return f, nil
	}
}

// fullRate measures how many messages a second raw rueidis publishes when
// publishers wait.
func (w *redisWork) fullRate(ctx context.Context, o *options) (float64, error) {
	f, err := w.flow(redisEntrant{open: openRaw(shardedCommands)}, w.waiting)(ctx, o)
	return f["published"], err
}
