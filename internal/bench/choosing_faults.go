package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/soak/check"
	"github.com/fanoutgo/fanout/internal/soak/world"
)

// faultLength is how long a node is gone: longer than a cluster takes to
// replace a primary.
const faultLength = 8 * time.Second

// A nodeFault is something that happens to a node for a while.
type nodeFault struct {
	begin, end func(faultyNode, context.Context) error
}

var nodeFaults = map[string]nodeFault{
	"killed":  {faultyNode.Kill, faultyNode.Start},
	"paused":  {faultyNode.Pause, faultyNode.Unpause},
	"cut off": {faultyNode.Cut, faultyNode.Heal},
}

// faultsOf returns the names of all faults, or of the one that is quick.
func faultsOf(o *options) []string {
	names := []string{"killed", "paused", "cut off"}
	if o.quick {
		return names[:1]
	}
	return names
}

// faultResults are the figures of a way with a number of nodes, by fault. All
// faults happen in one run, since it takes long to start servers.
type faultResults struct {
	way   *way
	nodes int
	left  map[string]figures // of the last run, that nobody has asked for yet
}

// of returns the figures of a fault.
func (r *faultResults) of(ctx context.Context, o *options, fault string) (figures, error) {
	if f, ok := r.left[fault]; ok {
		delete(r.left, fault)
		return f, nil
	}
	all, err := sufferFaults(ctx, o, r.way, r.nodes)
	if err != nil {
		return nil, err
	}
	r.left = all
	f := all[fault]
	delete(all, fault)
	return f, nil
}

// An ordeal is a farm on which a world has faults.
type ordeal struct {
	farm
	way        *way
	names      []string
	recovered  []float64       // when each fault began, and at the end
	impossible map[string]bool // faults that cannot happen here
}

// sufferFaults has all faults happen to a farm while people talk, in rooms with
// and without a history.
func sufferFaults(ctx context.Context, o *options, w *way, nodes int) (map[string]figures, error) {
	f, err := w.start(ctx, nodes, true)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, length := &ordeal{farm: f, way: w, names: faultsOf(o), impossible: make(map[string]bool)}, faultLength
	if o.quick {
		length = time.Second
	}
	cfg := world.Config{
		Seed: uint64(time.Now().UnixNano()), Rooms: 24, Pace: 50 * time.Millisecond, Log: new(world.Journal), Unordered: true,
	}
	for _, name := range d.names {
		// Servers that keep everything in memory lose what they have, and
		// failovers have two primaries for a while. What counts here is that
		// it is reported.
		cfg.Faults = append(cfg.Faults, world.Fault{
			Name: name, Lossy: true, Doubtful: true, TwoOrders: true, TakesOver: true,
			Happen: func(ctx context.Context, w *world.World) error { return d.happen(ctx, w, name, length) },
		})
	}
	cfg.Faults = append(cfg.Faults, world.Fault{Name: "the end", Lossy: true, Happen: func(_ context.Context, w *world.World) error {
		d.note(w.Hubs)
		return nil
	}})
	report, err := world.Run(ctx, cfg, d)
	if err != nil {
		return nil, fmt.Errorf("%w\n%v", err, report.Failures)
	}
	for _, failure := range report.Failures[:min(len(report.Failures), 20)] {
		fmt.Fprintf(os.Stderr, "choosing: %s, %d nodes: %s\n", w.name, nodes, failure)
	}
	return d.figures(report), nil
}

// happen has a fault happen to a server that a hub uses.
func (d *ordeal) happen(ctx context.Context, w *world.World, name string, length time.Duration) error {
	d.note(w.Hubs)
	f, node := nodeFaults[name], d.node(w.Random.IntN(len(w.Hubs)))
	err := f.begin(node, ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		d.impossible[name] = true
		return nil
	}
	if err != nil {
		return err
	}
	if err := sleep(ctx, length); err != nil {
		return err
	}
	return f.end(node, context.WithoutCancel(ctx))
}

// note notes how many messages hubs have read from histories so far.
func (d *ordeal) note(hubs []*fanout.Hub) {
	sum := 0.0
	for _, h := range hubs {
		sum += float64(h.Stats().Recovered)
	}
	d.recovered = append(d.recovered, sum)
}

// figures returns the figures of each fault of a report.
func (d *ordeal) figures(report check.Report) map[string]figures {
	all := make(map[string]figures)
	for i, name := range d.names {
		if d.impossible[name] {
			continue
		}
		f := report.Figures[i+1] // after the time before the first fault
		all[name] = figures{
			"accepted": float64(f.Published), "silent": float64(f.Silent),
			"missed": float64(f.Missed), "unknown": float64(f.Unknown), "kept": float64(f.Lost - f.Trimmed),
			"recovered": d.recovered[i+1] - d.recovered[i], "outage": milliseconds(f.Outage),
		}
	}
	return all
}

// Open implements world.Servers.
func (d *ordeal) Open(hub int, log *slog.Logger) (fanout.Adapter, func(), error) {
	return d.adapter(d.way, hub, log)
}

// Settle implements world.Servers.
func (d *ordeal) Settle(ctx context.Context) error { return d.settle(ctx) }

// Roles implements world.Servers.
func (d *ordeal) Roles() string { return "" }

// Heal implements world.Servers. The farm is closed next.
func (d *ordeal) Heal() {}
