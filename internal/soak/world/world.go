package world

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/soak/check"
)

// Hubs is the number of hubs in a world.
const Hubs = 3

// Patience bounds everything that a run waits for. Only a bug, of the library
// or of a suite, takes that long.
const Patience = time.Minute

// Servers are what a world runs on.
type Servers interface {
	// Open returns an adapter for a hub, and a function that closes what the
	// adapter uses, after the hub has been closed.
	Open(hub int, log *slog.Logger) (a fanout.Adapter, disconnect func(), err error)
	// Settle waits until the servers have dealt with a fault that is over.
	Settle(ctx context.Context) error
	// Roles names the servers that lead. If that has changed after a fault that
	// does not take over, the fault is recorded as a crash.
	Roles() string
	// Heal ends whatever was done to the connections of hubs.
	Heal()
}

// A Config is the configuration of a run.
type Config struct {
	Seed   uint64
	Time   time.Duration // of faults at random, counted from the beginning
	Faults []Fault
	Rooms  int
	Plain  bool // no room has a history
	Movers int
	Pace   time.Duration // between messages of a room
	Log    *Journal      // gets what happens
	// Unordered: the backend has no order among publishers in rooms without
	// history.
	Unordered bool
}

// A Fault is something that happens to the servers or to a hub.
type Fault struct {
	Name   string
	Happen func(context.Context, *World) error

	// What the fault may cause; see check.Fault.
	Lossy, Doubtful, TwoOrders, Moves bool
	TakesOver                         bool // another server may lead afterwards
}

// A World is hubs on servers, rooms, clients that stay in all of them, clients
// that move, and publishers in each room on each hub.
type World struct {
	Rooms  []*Room
	Hubs   []*fanout.Hub
	Random *rand.Rand // of the faults; movers have their own

	config      Config
	servers     Servers
	disconnects []func()
	began       time.Time

	residents []*client
	movers    []*mover

	publishers sync.WaitGroup
	stop       chan struct{} // closed when publishers have to publish their last message
	moving     sync.WaitGroup
	settle     chan struct{} // closed when movers have to stop
	still      sync.RWMutex  // held for reading while a client moves

	fail   context.CancelCauseFunc // ends the run
	faults []check.Fault           // used only by the goroutine of live
}

// newWorld makes everything, and starts nothing yet.
func newWorld(cfg Config, s Servers) (*World, error) {
	w := &World{
		config: cfg, servers: s,
		Random: rand.New(rand.NewPCG(cfg.Seed, 0)),
		stop:   make(chan struct{}), settle: make(chan struct{}),
	}
	for i := range cfg.Rooms {
		w.Rooms = append(w.Rooms, w.newRoom(i))
	}
	for i := range Hubs {
		if err := w.openHub(i); err != nil {
			return w, err
		}
	}
	return w, nil
}

// now returns the time since the run began.
func (w *World) now() check.Time { return time.Since(w.began) }

func (w *World) openHub(i int) error {
	log := slog.New(slog.NewTextHandler(w.config.Log, nil))
	a, disconnect, err := w.servers.Open(i, log)
	if err != nil {
		return fmt.Errorf("connect hub %d: %w", i, err)
	}
	h, err := fanout.New(a, &fanout.Options{
		Window:         fanout.Window{Messages: 1 << 20, Bytes: 1 << 30}, // so that no member is slow
		PublishTimeout: 20 * time.Second,
		Linger:         time.Second, // so that rooms are also closed and opened
		Room:           roomOptions,
		Logger:         log,
	})
	if err != nil {
		disconnect()
		return err
	}
	w.Hubs, w.disconnects = append(w.Hubs, h), append(w.disconnects, disconnect)
	return nil
}

// close closes the hubs. Everything else of a run must have ended.
func (w *World) close() error {
	w.servers.Heal()
	var errs []error
	for i, h := range w.Hubs {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		errs = append(errs, h.Close(ctx))
		cancel()
		w.disconnects[i]()
	}
	return errors.Join(errs...)
}

// start starts the clients and, when the residents are in all rooms, the
// publishers. All of them end when ctx ends.
func (w *World) start(ctx context.Context) error {
	w.began = time.Now()
	for i := range Hubs {
		c, err := w.newClient(ctx, fmt.Sprint("resident", i), "", i)
		if err != nil {
			return err
		}
		w.residents = append(w.residents, c)
		if err := InParallel(w.Rooms, func(r *Room) error { return c.join(ctx, r.index) }); err != nil {
			return err
		}
	}
	for i := range w.config.Movers {
		m, err := w.newMover(ctx, i)
		if err != nil {
			return err
		}
		w.movers = append(w.movers, m)
	}
	for _, r := range w.Rooms {
		for _, p := range r.publishers[:Hubs] {
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
func (w *World) finish(ctx context.Context) error {
	close(w.settle)
	if err := w.waitFor(ctx, "movers come to rest", &w.moving); err != nil {
		return err
	}
	close(w.stop)
	if err := w.waitFor(ctx, "publishers say their last", &w.publishers); err != nil {
		return err
	}
	err := w.Await(ctx, "everybody hears the last of everybody", func() string {
		for _, c := range w.clients() {
			if lacks := c.lacks((*publisher).count); lacks != "" {
				return lacks
			}
		}
		return ""
	})
	if err == nil {
		w.compare(ctx)
	}
	return err
}

// leave waits for all goroutines of the world, which have ended or do so
// because the run is over, and closes the clients. complete means that they
// have received all messages.
func (w *World) leave(complete bool) {
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

func (w *World) clients() []*client {
	list := w.residents[:len(w.residents):len(w.residents)]
	for _, m := range w.movers {
		list = append(list, m.client)
	}
	return list
}

// record returns the record of the run, after everything has ended.
func (w *World) record() *check.Run {
	run := &check.Run{Faults: w.faults, Unordered: w.config.Unordered}
	for _, r := range w.Rooms {
		run.Rooms = append(run.Rooms, r.record(w.clients()))
	}
	return run
}

// Await waits until lacks returns "". Its error contains what lacks returned
// last.
func (w *World) Await(ctx context.Context, what string, lacks func() string) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
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
func (w *World) waitFor(ctx context.Context, what string, group *sync.WaitGroup) error {
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
	case <-time.After(Patience):
		return fmt.Errorf("waited until %s: it did not happen within %v", what, Patience)
	}
}

// InParallel calls f for all items at once and returns their errors.
func InParallel[T any](items []T, f func(T) error) error {
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
	return context.WithTimeoutCause(ctx, Patience, fmt.Errorf("it takes more than %v", Patience))
}
