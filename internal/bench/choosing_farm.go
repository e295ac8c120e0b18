package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
)

// A way is one way to join hubs.
type way struct {
	name string
	// servers has the name of what the way runs on: ways with the same one may
	// share servers.
	servers string
	start   func(ctx context.Context, nodes int, faults bool) (farm, error)
	redis   func(rueidis.Client, *slog.Logger) (fanout.Adapter, error) // of the ways that use a client of Redis
}

// A farm is the servers of a way. Faults happen only to farms that were started
// for that, since it may make them slower.
type farm interface {
	// adapter returns an adapter for a hub, the hubs being numbered, and a
	// function that ends what the adapter uses.
	adapter(w *way, hub int, log *slog.Logger) (fanout.Adapter, func(), error)
	usage(ctx context.Context) (usage, error)
	// node returns a server that a hub uses, whichever.
	node(hub int) faultyNode
	// settle waits until servers that are all there again serve.
	settle(ctx context.Context) error
	Close() error
}

// A faultyNode is a server that something may happen to: a redistest.Node.
type faultyNode interface {
	Kill(context.Context) error
	Start(context.Context) error
	Pause(context.Context) error
	Unpause(context.Context) error
	Cut(context.Context) error
	Heal(context.Context) error
}

var ways = []*way{
	{name: "redis", servers: "cluster", start: startClusterFarm, redis: func(c rueidis.Client, log *slog.Logger) (fanout.Adapter, error) {
		return redis.New(c, &redis.Options{Logger: log})
	}},
	{name: "sharded", servers: "cluster", start: startClusterFarm, redis: shardedWithLog},
	{name: "nats", servers: "nats", start: startNATSFarm},
	{name: "groups", servers: "groups", start: startGroups, redis: shardedWithLog},
}

func shardedWithLog(c rueidis.Client, log *slog.Logger) (fanout.Adapter, error) {
	return sharded.New(c, &sharded.Options{Logger: log})
}

// clusterFarm is a Redis Cluster: from six nodes on half of them are replicas.
type clusterFarm struct {
	*redistest.Cluster
	faults bool
}

// A cluster in which faults happen replaces a silent node after this time.
const nodeTimeout = 3 * time.Second

func startClusterFarm(ctx context.Context, nodes int, faults bool) (farm, error) {
	o := redistest.Options{Primaries: nodes, NodeTimeout: 15 * time.Second, Args: bigBuffers}
	if nodes >= 6 {
		o.Primaries, o.Replicas = nodes/2, 1
	}
	if faults {
		o.NodeTimeout = nodeTimeout
	}
	whereServersRun(faults)
	c, err := redistest.StartCluster(ctx, o)
	if err != nil {
		return nil, err
	}
	return clusterFarm{c, faults}, nil
}

// processesWanted is whether whoever runs this wants no containers.
var processesWanted = os.Getenv("FANOUT_TEST_PROCESSES") == "1"

// whereServersRun prefers processes if costs are measured, and containers if
// faults happen, since processes have no network that could be cut.
func whereServersRun(faults bool) {
	preferProcesses()
	if faults && !processesWanted {
		os.Unsetenv("FANOUT_TEST_PROCESSES")
	}
}

func (f clusterFarm) adapter(w *way, _ int, log *slog.Logger) (fanout.Adapter, func(), error) {
	return redisAdapter(w, f.Cluster, f.faults, log)
}

// redisAdapter returns an adapter with a client of its own: on plain
// connections if costs are measured, on those of redistest, which end with the
// network of a node, if faults happen.
func redisAdapter(w *way, s servers, faults bool, log *slog.Logger) (fanout.Adapter, func(), error) {
	to := dial
	if faults {
		to = connect
	}
	client, err := to(s, func(o *rueidis.ClientOption) { o.DisableCache = true })
	if err != nil {
		return nil, nil, err
	}
	a, err := w.redis(client, log)
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return a, client.Close, nil
}

func (f clusterFarm) usage(ctx context.Context) (usage, error) { return usageOf(ctx, f.Cluster) }
func (f clusterFarm) settle(ctx context.Context) error         { return f.WaitHealthy(ctx) }
func (f clusterFarm) node(hub int) faultyNode {
	primaries := f.Primaries()
	return primaries[hub%len(primaries)]
}

// groups are single Redis servers that do not know each other.
type groups struct {
	servers []*redistest.Server
	faults  bool
}

func startGroups(ctx context.Context, nodes int, faults bool) (farm, error) {
	whereServersRun(faults)
	g := groups{make([]*redistest.Server, nodes), faults}
	err := inParallel(nodes, func(i int) (err error) {
		g.servers[i], err = redistest.StartServer(ctx, redistest.Options{Args: bigBuffers})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g groups) adapter(w *way, _ int, log *slog.Logger) (_ fanout.Adapter, disconnect func(), err error) {
	var parts []partition.Partition
	var ends []func()
	disconnect = func() {
		for _, end := range ends {
			end()
		}
	}
	for i, s := range g.servers {
		a, end, err := redisAdapter(w, s, g.faults, log)
		if err != nil {
			disconnect()
			return nil, nil, err
		}
		parts, ends = append(parts, partition.Partition{Name: fmt.Sprint("group ", i), Adapter: a}), append(ends, end)
	}
	a, err := partition.New(parts, &partition.Options{Logger: log})
	if err != nil {
		disconnect()
		return nil, nil, err
	}
	return a, disconnect, nil
}

func (g groups) usage(ctx context.Context) (sum usage, err error) {
	for _, s := range g.servers {
		u, err := usageOf(ctx, s)
		if err != nil {
			return sum, err
		}
		sum = sum.plus(u)
	}
	return sum, nil
}

func (g groups) node(hub int) faultyNode { return g.servers[hub%len(g.servers)].Node }

func (g groups) settle(context.Context) error { return nil } // Start and Heal have waited

func (g groups) Close() error {
	var errs []error
	for _, s := range g.servers {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// oneFarm runs the servers of one way at a time.
type oneFarm struct {
	farm
	key string
}

func (f *oneFarm) start(ctx context.Context, w *way, nodes int) (err error) {
	key := fmt.Sprint(w.servers, nodes)
	if f.key == key {
		return nil
	}
	if err := f.Close(); err != nil {
		return err
	}
	if f.farm, err = w.start(ctx, nodes, false); err == nil {
		f.key = key
	}
	return err
}

func (f *oneFarm) Close() error {
	if f.farm == nil {
		return nil
	}
	old := f.farm
	f.farm, f.key = nil, ""
	return old.Close()
}
