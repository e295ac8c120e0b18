package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
)

// preferProcesses has Redis servers run as processes if there is a program for
// that: a proxy may be between containers and this process, whose costs must
// not count.
func preferProcesses() {
	for _, name := range []string{"redis-server", "valkey-server"} {
		if _, err := exec.LookPath(name); err == nil && os.Getenv("FANOUT_REQUIRE_DOCKER") != "1" {
			os.Setenv("FANOUT_TEST_PROCESSES", "1")
			return
		}
	}
}

// servers are the Redis servers of a suite: a redistest.Cluster or Server.
type servers interface {
	ClientOption() rueidis.ClientOption
	Close() error
}

// startServer starts a single server; the caller closes it.
func startServer(ctx context.Context) (*redistest.Server, error) {
	preferProcesses()
	return redistest.StartServer(ctx, redistest.Options{Args: bigBuffers})
}

// startCluster starts a cluster with a number of primaries; the caller closes
// it.
func startCluster(ctx context.Context, primaries int) (*redistest.Cluster, error) {
	preferProcesses()
	return redistest.StartCluster(ctx, redistest.Options{Primaries: primaries, NodeTimeout: 15 * time.Second, Args: bigBuffers})
}

// bigBuffers: publishers that do not wait may be faster than the reader, and a
// subscriber that is cut off would end the comparison.
var bigBuffers = []string{"--client-output-buffer-limit", "pubsub 1gb 0 0"}

// nodesOf returns all nodes of the servers.
func nodesOf(s servers) []*redistest.Node {
	switch s := s.(type) {
	case *redistest.Cluster:
		return s.Nodes()
	case *redistest.Server:
		return []*redistest.Node{s.Node}
	}
	return nil
}

// usage is what servers have done since they started.
type usage struct {
	cpu      time.Duration
	commands float64
	netIn    float64 // bytes received from clients
	netOut   float64 // bytes sent to clients
	bus      float64 // messages sent to other nodes for PUBLISH and SPUBLISH

	connections float64 // of clients, now
}

func (u usage) minus(v usage) usage {
	return usage{u.cpu - v.cpu, u.commands - v.commands, u.netIn - v.netIn, u.netOut - v.netOut, u.bus - v.bus, u.connections - v.connections}
}

func (u usage) plus(v usage) usage {
	return usage{u.cpu + v.cpu, u.commands + v.commands, u.netIn + v.netIn, u.netOut + v.netOut, u.bus + v.bus, u.connections + v.connections}
}

// A metered has servers that say what they have done.
type metered interface {
	usage(ctx context.Context) (usage, error)
}

// onRedis makes Redis servers metered.
type onRedis struct{ servers }

func (s onRedis) usage(ctx context.Context) (usage, error) { return usageOf(ctx, s.servers) }

// usageOf returns the sum over all nodes.
func usageOf(ctx context.Context, s servers) (sum usage, err error) {
	for _, n := range nodesOf(s) {
		cpu, err1 := n.CPU(ctx)
		info, err2 := n.Do(ctx, "INFO", "stats", "clients").ToString()
		if err := errors.Join(err1, err2); err != nil {
			return sum, err
		}
		sum.cpu += cpu
		sum.commands += statistic(info, "total_commands_processed")
		sum.netIn += statistic(info, "total_net_input_bytes")
		sum.netOut += statistic(info, "total_net_output_bytes")
		sum.connections += statistic(info, "connected_clients")
	}
	if c, ok := s.(*redistest.Cluster); ok {
		sent, err := c.BusSent(ctx)
		if err != nil {
			return sum, err
		}
		sum.bus = float64(sent.Publish + sent.PublishShard)
	}
	return sum, nil
}

// memoryOf returns the bytes that all nodes use.
func memoryOf(ctx context.Context, s servers) (sum float64, err error) {
	for _, n := range nodesOf(s) {
		info, err := n.Do(ctx, "INFO", "memory").ToString()
		if err != nil {
			return 0, err
		}
		sum += statistic(info, "used_memory")
	}
	return sum, nil
}

// statistic reads a line of INFO.
func statistic(info, name string) float64 {
	_, rest, _ := strings.Cut(info, name+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	v, _ := strconv.ParseFloat(value, 64)
	return v
}

// connect returns a client of the servers for publishing and subscribing.
func connect(s servers, opts ...func(*rueidis.ClientOption)) (rueidis.Client, error) {
	o := s.ClientOption()
	for _, opt := range opts {
		opt(&o)
	}
	return rueidis.NewClient(o)
}
