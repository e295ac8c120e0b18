package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/soak/check"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
)

// hubs is the number of hubs in the world.
const hubs = 3

// patience bounds everything that a run waits for. Only a bug, of the library
// or of this suite, takes that long.
const patience = time.Minute

// A world is three hubs on a cluster, rooms, clients that stay in all of them,
// clients that move, and publishers in each room on each hub.
type world struct {
	config
	cluster *redistest.Cluster
	began   time.Time
	rooms   []*room
	hubs    []*hub
	random  *rand.Rand // of the faults; movers have their own

	residents []*client
	movers    []*mover

	publishers sync.WaitGroup
	stop       chan struct{} // closed when publishers have to publish their last message
	moving     sync.WaitGroup
	settle     chan struct{} // closed when movers have to stop

	fail   context.CancelCauseFunc // ends the run
	faults []check.Fault           // used only by the goroutine of live

	failedOver map[*redistest.Node]time.Time // time of the last failover
}

// A hub is a hub with its client.
type hub struct {
	*fanout.Hub
	net    *redistest.Net
	client rueidis.Client
}

// newWorld makes everything, and starts nothing yet.
func newWorld(cfg config, c *redistest.Cluster) (*world, error) {
	w := &world{
		config: cfg, cluster: c,
		random: rand.New(rand.NewPCG(cfg.seed, 0)),
		stop:   make(chan struct{}), settle: make(chan struct{}),
		failedOver: make(map[*redistest.Node]time.Time),
	}
	for i := range cfg.rooms {
		w.rooms = append(w.rooms, w.newRoom(i))
	}
	for range hubs {
		h, err := w.newHub()
		if err != nil {
			return w, err
		}
		w.hubs = append(w.hubs, h)
	}
	return w, nil
}

// now returns the time since the run began.
func (w *world) now() check.Time { return time.Since(w.began) }

func (w *world) newHub() (*hub, error) {
	h := &hub{net: new(redistest.Net)}
	o := w.cluster.ClientOption()
	h.net.Option()(&o)
	var err error
	if h.client, err = rueidis.NewClient(o); err != nil {
		return nil, fmt.Errorf("connect a client: %w", err)
	}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	a, err := sharded.New(h.client, &sharded.Options{ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 2 * time.Second, Logger: log})
	if err == nil {
		h.Hub, err = fanout.New(a, &fanout.Options{
			Window:         fanout.Window{Messages: 1 << 20, Bytes: 1 << 30}, // so that no member is slow
			PublishTimeout: 20 * time.Second,
			Linger:         time.Second, // so that rooms are also closed and opened
			Room:           roomOptions,
			Logger:         log,
		})
	}
	if err != nil {
		h.client.Close()
		return nil, err
	}
	return h, nil
}

// close closes the hubs. Everything else of a run must have ended.
func (w *world) close() error {
	var errs []error
	for _, h := range w.hubs {
		h.net.HealAll()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		errs = append(errs, h.Close(ctx))
		cancel()
		h.client.Close()
	}
	return errors.Join(errs...)
}

// start starts the clients and, when the residents are in all rooms, the
// publishers. All of them end when ctx ends.
func (w *world) start(ctx context.Context) error {
	w.began = time.Now()
	for i := range hubs {
		c, err := w.newClient(ctx, fmt.Sprint("resident", i), i)
		if err != nil {
			return err
		}
		w.residents = append(w.residents, c)
		if err := inParallel(w.rooms, func(r *room) error { return c.join(ctx, r.index) }); err != nil {
			return err
		}
	}
	for i := range w.config.movers {
		m, err := w.newMover(ctx, i)
		if err != nil {
			return err
		}
		w.movers = append(w.movers, m)
	}
	for _, r := range w.rooms {
		for _, p := range r.publishers[:hubs] {
			w.publishers.Go(func() { p.run(ctx) })
		}
	}
	for _, m := range w.movers {
		w.moving.Go(func() { m.run(ctx) })
	}
	return nil
}

// finish stops the movers and the publishers, waits until all clients have
// received all messages, and closes all clients.
func (w *world) finish(ctx context.Context) error {
	close(w.settle)
	if err := w.waitFor(ctx, "movers come to rest", &w.moving); err != nil {
		return err
	}
	close(w.stop)
	if err := w.waitFor(ctx, "publishers say their last", &w.publishers); err != nil {
		return err
	}
	return w.await(ctx, "everybody hears the last of everybody", func() string {
		for _, c := range w.clients() {
			if lacks := c.lacks((*publisher).count); lacks != "" {
				return lacks
			}
		}
		return ""
	})
}

// leave waits for all goroutines of the world, which have ended or do so
// because the run is over, and closes the clients. complete means that they
// have received all messages.
func (w *world) leave(complete bool) {
	w.moving.Wait()
	w.publishers.Wait()
	for _, c := range w.clients() {
		for _, p := range c.rooms {
			if p.in != nil {
				p.in.Complete = complete
			}
		}
		c.close()
	}
}

func (w *world) clients() []*client {
	list := w.residents[:len(w.residents):len(w.residents)]
	for _, m := range w.movers {
		list = append(list, m.client)
	}
	return list
}

// record returns the record of the run, after everything has ended.
func (w *world) record() *check.Run {
	run := &check.Run{Faults: w.faults}
	for _, r := range w.rooms {
		run.Rooms = append(run.Rooms, r.record(w.clients()))
	}
	return run
}

// await waits until lacks returns "". Its error contains what lacks returned
// last.
func (w *world) await(ctx context.Context, what string, lacks func() string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text := lacks()
		if text == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited until %s: %w: %s", what, context.Cause(ctx), text)
		}
	}
}

// waitFor waits for a group. Its members end with the run at the latest.
func (w *world) waitFor(ctx context.Context, what string, group *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { // leave waits for the same group
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waited until %s: %w", what, context.Cause(ctx))
	case <-time.After(patience):
		return fmt.Errorf("waited until %s: it did not happen within %v", what, patience)
	}
}

// inParallel calls f for all items at once and returns their errors.
func inParallel[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(item) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// within bounds one step of a run.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, patience, fmt.Errorf("it takes more than %v", patience))
}

// A config is the configuration of a run.
type config struct {
	server  string // its name in the table
	image   string
	seed    uint64
	time    time.Duration // of faults at random, counted from the beginning
	faults  []fault
	rooms   int
	plain   bool // no room has a history
	movers  int
	pace    time.Duration // between messages of a room
	slots   int           // that move at a time
	persist bool          // servers write everything to their disks
	log     *journal      // gets what happens
}
