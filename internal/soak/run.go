package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/soak/check"
)

// A result is the result of one run.
type result struct {
	config config
	report check.Report
	err    error // the run itself failed
}

func (r *result) failed() bool { return r.err != nil || len(r.report.Failures) > 0 }

// run starts a cluster, lets a world run on it through faults, and verifies the
// record. An error of ctx ends it early, and is an error of the run.
func run(ctx context.Context, cfg config) *result {
	r := &result{config: cfg}
	c, err := redistest.StartCluster(ctx, cfg.options())
	if err != nil {
		r.err = err
		return r
	}
	defer func() { r.err = errors.Join(r.err, c.Close()) }()
	w, err := newWorld(cfg, c)
	defer func() { r.err = errors.Join(r.err, w.close()) }()
	if err != nil {
		r.err = err
		return r
	}
	r.err = w.live(ctx)
	began := time.Now()
	r.report = check.Verify(w.record())
	w.log.say("verified in %v", time.Since(began))
	return r
}

func (cfg *config) options() redistest.Options {
	o := redistest.Options{Image: cfg.image, Replicas: 1}
	if cfg.persist {
		o.Args = []string{"--appendonly", "yes", "--appendfsync", "always"}
	}
	return o
}

// live is the whole life of a world, from the first Join to the last message.
// It ends at the first wait that takes too long.
func (w *world) live(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	w.fail = fail
	err := w.start(ctx)
	if err == nil {
		err = w.suffer(ctx)
	}
	if err == nil {
		err = w.finish(ctx)
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(err, cause) // the first error
	}
	fail(err)
	w.leave(err == nil)
	return err
}

// suffer causes all faults in turn, and then random ones until the time is up.
func (w *world) suffer(ctx context.Context) error {
	if err := w.serves(ctx, w.begin(check.Fault{Name: "none"})); err != nil {
		return err
	}
	for i := 0; i < len(w.config.faults) || w.now() < w.time; i++ {
		f := w.config.faults[i%len(w.config.faults)]
		if i >= len(w.config.faults) {
			f = w.config.faults[w.random.IntN(len(w.config.faults))]
		}
		if err := w.endure(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// begin records that a fault begins, and what it may cause.
func (w *world) begin(f check.Fault) *check.Fault {
	if len(w.faults) > 0 {
		f.From = w.now()
	}
	w.faults = append(w.faults, f)
	return &w.faults[len(w.faults)-1]
}

// endure causes a fault and waits until everything works again.
func (w *world) endure(ctx context.Context, f fault) error {
	before := w.primaries()
	note := w.begin(check.Fault{Name: f.name, Lossy: f.lossy, Doubtful: f.doubtful, TwoOrders: f.twoOrders, Moves: f.moves})
	w.log.say("%v: %s", note.From, f.name)
	ctx, cancel := context.WithTimeout(ctx, 3*patience) // each of its waits is shorter
	defer cancel()
	if err := f.happen(ctx, w); err != nil {
		return err
	}
	if err := w.cluster.WaitHealthy(ctx); err != nil {
		return err
	}
	if err := w.serves(ctx, note); err != nil {
		return err
	}
	if !f.takesOver && w.primaries() != before {
		// The machine was so busy that nodes took each other for dead. It is a
		// crash, then, and the suite would be wrong to complain of its results.
		w.log.say("%v: a replica took over that should not have", w.now())
		note.Name += ", and a takeover"
		note.Lossy, note.TwoOrders = true, true
	}
	return nil
}

// primaries returns the names of the primaries.
func (w *world) primaries() string {
	names := make(map[string]bool)
	for _, n := range w.cluster.Primaries() {
		names[n.ID()] = true
	}
	return fmt.Sprint(names) // in the order of keys
}

// serves waits until all clients receive from all publishers and all hubs are
// healthy.
func (w *world) serves(ctx context.Context, note *check.Fault) error {
	if err := w.hearing(ctx); err != nil {
		return err
	}
	note.Served = w.now()
	w.log.say("%v: everybody hears everybody, %v after the beginning", note.Served, note.Served-note.From)
	for i, h := range w.hubs {
		err := w.await(ctx, fmt.Sprintf("hub %d is healthy", i), func() string {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			if err := h.Health(ctx); err != nil {
				return err.Error()
			}
			return ""
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hearing waits until every resident has received from every publisher in every
// room a message that was published after the call.
func (w *world) hearing(ctx context.Context) error {
	want := make(map[*publisher]uint32)
	for _, r := range w.rooms {
		for _, p := range r.publishers[:hubs] {
			want[p] = p.count() + 1
		}
	}
	return w.await(ctx, "everybody hears everybody", func() string {
		for _, c := range w.residents {
			if lacks := c.lacks(func(p *publisher) uint32 { return want[p] }); lacks != "" {
				return lacks
			}
		}
		return ""
	})
}
