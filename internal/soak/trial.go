package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/soak/check"
	"github.com/fanoutgo/fanout/internal/soak/world"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
)

// A config is the configuration of a run.
type config struct {
	world.Config

	server  string // its name in the table
	image   string
	faults  []fault
	slots   int  // that move at a time
	persist bool // servers write everything to their disks
}

func (cfg *config) options() redistest.Options {
	o := redistest.Options{Image: cfg.image, Replicas: 1}
	if cfg.persist {
		o.Args = []string{"--appendonly", "yes", "--appendfsync", "always"}
	}
	return o
}

// A result is the result of one run.
type result struct {
	config config
	report check.Report
	err    error // the run itself failed
}

func (r *result) failed() bool { return r.err != nil || len(r.report.Failures) > 0 }

// run starts a cluster and lets a world run on it.
func run(ctx context.Context, cfg config) *result {
	r := &result{config: cfg}
	c, err := redistest.StartCluster(ctx, cfg.options())
	if err != nil {
		r.err = err
		return r
	}
	t := &trial{config: cfg, cluster: c, failedOver: make(map[*redistest.Node]time.Time)}
	for _, f := range cfg.faults {
		cfg.Faults = append(cfg.Faults, f.in(t))
	}
	r.report, err = world.Run(ctx, cfg.Config, t)
	r.err = errors.Join(err, c.Close())
	return r
}

// A trial is a world on a Redis Cluster.
type trial struct {
	*world.World // set when a fault happens

	config     config
	cluster    *redistest.Cluster
	nets       []*redistest.Net              // of the hubs
	failedOver map[*redistest.Node]time.Time // time of the last failover
}

// Open implements world.Servers.
func (w *trial) Open(_ int, log *slog.Logger) (fanout.Adapter, func(), error) {
	net := new(redistest.Net)
	o := w.cluster.ClientOption()
	net.Option()(&o)
	client, err := rueidis.NewClient(o)
	if err != nil {
		return nil, nil, err
	}
	a, err := sharded.New(client, &sharded.Options{ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 2 * time.Second, Logger: log})
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	w.nets = append(w.nets, net)
	return a, client.Close, nil
}

// Settle implements world.Servers.
func (w *trial) Settle(ctx context.Context) error { return w.cluster.WaitHealthy(ctx) }

// Roles implements world.Servers. It returns the names of the primaries.
func (w *trial) Roles() string {
	names := make(map[string]bool)
	for _, n := range w.cluster.Primaries() {
		names[n.ID()] = true
	}
	return fmt.Sprint(names) // in the order of keys
}

// Heal implements world.Servers.
func (w *trial) Heal() {
	for _, net := range w.nets {
		net.HealAll()
	}
}

// slotOf returns the slot of a room's channel and history.
func slotOf(r *world.Room) int { return redistest.Slot("{" + r.Name + "}") }
