package world

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/internal/soak/check"
)

// Run lets a world run on servers through faults, and verifies the record. An
// error of ctx ends it early, and is an error of the run.
func Run(ctx context.Context, cfg Config, s Servers) (r check.Report, err error) {
	w, err := newWorld(cfg, s)
	defer func() { err = errors.Join(err, w.close()) }()
	if err != nil {
		return r, err
	}
	err = w.live(ctx)
	began := time.Now()
	r = check.Verify(w.record())
	w.config.Log.Say("verified in %v", time.Since(began))
	return r, err
}

// live is the whole life of a world, from the first Join to the last message.
// It ends at the first wait that takes too long.
func (w *World) live(ctx context.Context) error {
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
func (w *World) suffer(ctx context.Context) error {
	if err := w.serves(ctx, w.begin(check.Fault{Name: "none"})); err != nil {
		return err
	}
	for i := 0; i < len(w.config.Faults) || w.now() < w.config.Time; i++ {
		f := w.config.Faults[i%len(w.config.Faults)]
		if i >= len(w.config.Faults) {
			f = w.config.Faults[w.Random.IntN(len(w.config.Faults))]
		}
		if err := w.endure(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

// begin records that a fault begins, and what it may cause.
func (w *World) begin(f check.Fault) *check.Fault {
	if len(w.faults) > 0 {
		f.From = w.now()
	}
	w.faults = append(w.faults, f)
	return &w.faults[len(w.faults)-1]
}

// endure causes a fault and waits until everything works again.
func (w *World) endure(ctx context.Context, f Fault) error {
	before := w.servers.Roles()
	note := w.begin(check.Fault{Name: f.Name, Lossy: f.Lossy, Doubtful: f.Doubtful, TwoOrders: f.TwoOrders, Moves: f.Moves})
	w.config.Log.Say("%v: %s", note.From, f.Name)
	ctx, cancel := context.WithTimeout(ctx, 3*Patience) // each of its waits is shorter
	defer cancel()
	if err := f.Happen(ctx, w); err != nil {
		return err
	}
	if err := w.servers.Settle(ctx); err != nil {
		return err
	}
	if err := w.serves(ctx, note); err != nil {
		return err
	}
	if !f.TakesOver && w.servers.Roles() != before {
		// The machine was so busy that nodes took each other for dead. It is a
		// crash, then, and the suite would be wrong to complain of its results.
		w.config.Log.Say("%v: a replica took over that should not have", w.now())
		note.Name += ", and a takeover"
		note.Lossy, note.TwoOrders = true, true
	}
	w.compare(ctx)
	return nil
}

// serves waits until all clients receive from all publishers and all hubs are
// healthy.
func (w *World) serves(ctx context.Context, note *check.Fault) error {
	if err := w.Hearing(ctx); err != nil {
		return err
	}
	note.Served = w.now()
	w.config.Log.Say("%v: everybody hears everybody, %v after the beginning", note.Served, note.Served-note.From)
	for i, h := range w.Hubs {
		err := w.Await(ctx, fmt.Sprintf("hub %d is healthy", i), func() string {
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

// Hearing waits until every resident has received from every publisher in every
// room a message that was published after the call.
func (w *World) Hearing(ctx context.Context) error {
	want := make(map[*publisher]uint32)
	for _, r := range w.Rooms {
		for _, p := range r.publishers[:Hubs] {
			want[p] = p.count() + 1
		}
	}
	return w.Await(ctx, "everybody hears everybody", func() string {
		for _, c := range w.residents {
			if lacks := c.lacks(func(p *publisher) uint32 { return want[p] }); lacks != "" {
				return lacks
			}
		}
		return ""
	})
}
