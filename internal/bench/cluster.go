package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
)

const clusterRooms = 100

var clusterSuite = &suite{
	name:  "cluster",
	about: fmt.Sprintf("what a publish costs all nodes of a Redis Cluster together, %d rooms, messages of %d B", clusterRooms, messageLength),
	metrics: []metric{
		{key: "servers", title: "nodes µs/msg", digits: 1},
		{key: "bus", title: "bus messages/msg", digits: 2},
		{key: "in", title: "clients in B/msg"},
		{key: "out", title: "clients out B/msg"},
		{key: "published", title: "published/s (16 wait)", more: true},
	},
	open:     openClusters,
	conclude: growth,
}

func openClusters(_ context.Context, o *options) ([]*contest, func() error, error) {
	sizes := []int{3, 6, 12}
	if o.quick {
		sizes = []int{2, 3}
	}
	one := new(oneCluster)
	var cases []*contest
	for _, primaries := range sizes {
		cases = append(cases, &contest{
			name:    fmt.Sprintf("%d primaries", primaries),
			measure: "raw SPUBLISH",
			contestants: []contestant{
				{"fanout sharded", one.turn(primaries, openHubs(shardedAdapter))},
				{"fanout classic", one.turn(primaries, openHubs(classicAdapter))},
				{"raw SPUBLISH", one.turn(primaries, openRaw(shardedCommands))},
				{"raw PUBLISH", one.turn(primaries, openRaw(classicCommands))},
				{control, one.turn(primaries, openControl)},
			},
		})
	}
	return cases, one.Close, nil
}

// oneCluster runs one cluster at a time, since idle ones use processors too.
type oneCluster struct {
	*redistest.Cluster
	primaries int
}

func (c *oneCluster) start(ctx context.Context, primaries int) (err error) {
	if c.primaries == primaries {
		return nil
	}
	if err := c.Close(); err != nil {
		return err
	}
	if c.Cluster, err = startCluster(ctx, primaries); err == nil {
		c.primaries = primaries
	}
	return err
}

func (c *oneCluster) Close() error {
	if c.Cluster == nil {
		return nil
	}
	old := c.Cluster
	c.Cluster, c.primaries = nil, 0
	return old.Close()
}

// turn measures how many messages a second a few waiting publishers publish,
// and then what a message costs.
func (c *oneCluster) turn(primaries int, open redisOpener) func(context.Context, *options) (figures, error) {
	return func(ctx context.Context, o *options) (f figures, err error) {
		if err := c.start(ctx, primaries); err != nil {
			return nil, err
		}
		t := new(tally)
		p, err := open(ctx, c.Cluster, clusterRooms, t)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, p.close()) }()
		s := onRedis{c.Cluster}
		fast, err := flawless(ctx, s, t, crowdOf(16).publisher(ctx, p, clusterRooms, o.duration/2))
		if err != nil {
			return nil, err
		}
		f, err = costs(ctx, s, t, o.duration/costSlices, crowdOf(1).publisher(ctx, p, clusterRooms, o.duration/costSlices))
		if err == nil {
			f["published"] = fast.figures()["published"]
		}
		return f, err
	}
}

// costSlices is the number of slices in which costs are measured.
const costSlices = 5

// costs measures what a message costs when one waiting publisher publishes.
// Then no node ever finds two messages at once, which it would process for less
// than twice the price of one: in a large cluster, where each node gets fewer
// messages, that happens less often, and a publish would look more expensive.
//
// Disturbances of the machine make a message more expensive too, and never
// cheaper, the more so the more nodes have to be woken. So of some slices the
// cheapest counts. That holds for slices in which nothing is published, too.
func costs(ctx context.Context, s metered, t *tally, slice time.Duration, publish func() (int64, error)) (best figures, err error) {
	var idle sample
	var slices []sample
	for range costSlices {
		still, err := flawless(ctx, s, t, func() (int64, error) { return 0, sleep(ctx, slice) })
		if err != nil {
			return nil, err
		}
		if len(slices) == 0 || still.servers.cpu < idle.servers.cpu {
			idle = still
		}
		busy, err := flawless(ctx, s, t, publish)
		if err != nil {
			return nil, err
		}
		slices = append(slices, busy)
	}
	for _, busy := range slices {
		if f := busy.without(idle).figures(); best == nil || f["servers"] < best["servers"] {
			best = f
		}
	}
	return best, nil
}

// flawless measures. A loss is an error.
func flawless(ctx context.Context, s metered, t *tally, work func() (int64, error)) (sample, error) {
	m, err := measure(ctx, s, t, work)
	if err == nil && m.lost > 0 {
		err = fmt.Errorf("%d of %d messages are lost", m.lost, m.messages)
	}
	return m, err
}

// without subtracts what the nodes use when nothing is published: each node
// gossips with all others, so that grows with their number. It also subtracts
// the cost of asking the nodes what they have used. Idle must be of the same
// duration.
func (m sample) without(idle sample) sample {
	m.servers = m.servers.minus(idle.servers)
	return m
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// control is a command that certainly concerns one node only. On a small
// machine it becomes more expensive with the number of nodes too, since each is
// woken after a longer sleep.
const control = "SET (control)"

// controlPeer sets keys instead of publishing to rooms. There is no receiver.
type controlPeer struct {
	client rueidis.Client
	t      *tally
}

func openControl(_ context.Context, s servers, _ int, t *tally) (redisPeer, error) {
	client, err := dial(s)
	return &controlPeer{client, t}, err
}

func (p *controlPeer) publish(ctx context.Context, batch []post) error {
	for _, m := range batch {
		err := p.client.Do(ctx, p.client.B().Set().Key(channelOf(m.room)).Value(rueidis.BinaryString(m.data)).Build()).Error()
		if err != nil {
			return err
		}
		p.t.note(m.data)
	}
	return nil
}

func (p *controlPeer) close() error {
	p.client.Close()
	return nil
}

// growth adds what a publish costs in the largest cluster compared to the
// smallest, using the smallest cost of all rounds, as costs does; and that
// compared to the control. With sharded Pub/Sub the number of nodes should not
// matter.
func growth(r *report) {
	if len(r.cases) < 2 {
		return
	}
	small, large := r.cases[0], r.cases[len(r.cases)-1]
	grown := func(name string) float64 {
		return slices.Min(large.all[name]["servers"]) / slices.Min(small.all[name]["servers"])
	}
	r.notes = append(r.notes, fmt.Sprintf("\nprocessor time of a publish, %s compared to %s (and that to what it is for %s):", large.name, small.name, control))
	for _, p := range small.contestants {
		v := grown(p.name)
		share := v / grown(control)
		note := fmt.Sprintf("%s: ×%.2f (%.2f)", p.name, v, share)
		switch p.name {
		case "fanout sharded":
			note = met(share >= 0.9 && share <= 1.1) + note + ", should be 0.9 to 1.1"
		case "fanout classic":
			note = met(share > 1.1) + note + ", should be more than 1.1, as every node takes part"
		default:
			note = "           " + note
		}
		r.notes = append(r.notes, note)
	}
}

func met(yes bool) string {
	if yes {
		return "  met      "
	}
	return "  NOT MET  "
}
