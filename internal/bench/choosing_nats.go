package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fanoutgo/fanout"
	fanoutnats "github.com/fanoutgo/fanout/adapter/nats"
	"github.com/fanoutgo/fanout/internal/tcpproxy"
	"github.com/nats-io/nats.go"
)

// natsFarm is a cluster of NATS servers, each a process. If faults happen,
// proxies are on each way to a server, from clients and from each other server,
// and the servers keep histories.
type natsFarm struct {
	dir     string
	nodes   []*natsNode
	clients []*tcpproxy.Proxy          // to each server, from its clients
	routes  map[[2]int]*tcpproxy.Proxy // from one server to another
}

func startNATSFarm(ctx context.Context, n int, faults bool) (_ farm, err error) {
	f := &natsFarm{routes: make(map[[2]int]*tcpproxy.Proxy)}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.dir, err = os.MkdirTemp("", "bench-nats-"); err != nil {
		return nil, err
	}
	ports, err := freePorts(3 * n)
	if err != nil {
		return nil, err
	}
	for i := range n {
		node := &natsNode{farm: f, index: i, config: natsConfig{
			Name: fmt.Sprint("n", i), Client: ports[3*i], Cluster: ports[3*i+1], Monitor: ports[3*i+2], JetStream: faults,
			Dir: filepath.Join(f.dir, fmt.Sprint(i)),
		}}
		f.nodes = append(f.nodes, node)
	}
	if err := f.connect(faults); err != nil {
		return nil, err
	}
	if err := inParallel(n, func(i int) error { return f.nodes[i].Start(ctx) }); err != nil {
		return nil, err
	}
	return f, f.settle(ctx)
}

// connect tells servers where the others are.
func (f *natsFarm) connect(faults bool) error {
	way := func(port int) (string, *tcpproxy.Proxy, error) {
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		if !faults {
			return addr, nil, nil
		}
		p, err := tcpproxy.New(addr)
		if err != nil {
			return "", nil, err
		}
		return p.Addr(), p, nil
	}
	for i, node := range f.nodes {
		addr, p, err := way(node.config.Client)
		if err != nil {
			return err
		}
		node.addr = addr
		if p != nil {
			f.clients = append(f.clients, p)
		}
		for j, other := range f.nodes {
			if i == j {
				continue
			}
			addr, p, err := way(other.config.Cluster)
			if err != nil {
				return err
			}
			node.config.Routes = append(node.config.Routes, addr)
			if p != nil {
				f.routes[[2]int{i, j}] = p
			}
		}
	}
	return nil
}

// serverOf returns which server a hub is connected to at first. Hubs are spread
// over them.
func (f *natsFarm) serverOf(hub int) int { return hub % len(f.nodes) }

func (f *natsFarm) adapter(_ *way, hub int, log *slog.Logger) (fanout.Adapter, func(), error) {
	var servers []string
	for i := range f.nodes {
		servers = append(servers, "nats://"+f.nodes[(f.serverOf(hub)+i)%len(f.nodes)].addr)
	}
	a, err := fanoutnats.New(strings.Join(servers, ","), &fanoutnats.Options{
		Logger:  log,
		Connect: []nats.Option{nats.DontRandomize(), nats.IgnoreDiscoveredServers(), nats.Timeout(2 * time.Second)},
	})
	return a, func() {}, err
}

func (f *natsFarm) node(hub int) faultyNode { return f.nodes[f.serverOf(hub)] }

// natsCounts are figures of a server, or of a connection to another one.
type natsCounts struct {
	InMsgs      float64 `json:"in_msgs"`
	OutMsgs     float64 `json:"out_msgs"`
	InBytes     float64 `json:"in_bytes"`
	OutBytes    float64 `json:"out_bytes"`
	Connections float64 `json:"connections"`
	Name        string  `json:"remote_name"`
}

// natsRoutes are the connections of a server to others.
type natsRoutes struct {
	Routes []natsCounts `json:"routes"`
}

// usage returns what the servers have done. They count the bytes of messages,
// and not those of their protocol.
func (f *natsFarm) usage(ctx context.Context) (sum usage, err error) {
	for _, node := range f.nodes {
		var all natsCounts
		var routes natsRoutes
		cpu, err1 := node.process.preciseCPU()
		err2 := errors.Join(node.ask(ctx, "/varz", &all), node.ask(ctx, "/routez", &routes))
		if err := errors.Join(err1, err2); err != nil {
			return sum, err
		}
		u := usage{cpu: cpu, commands: all.InMsgs, netIn: all.InBytes, netOut: all.OutBytes, connections: all.Connections}
		for _, r := range routes.Routes {
			u = u.minus(usage{commands: r.InMsgs, netIn: r.InBytes, netOut: r.OutBytes, bus: -r.OutMsgs})
		}
		sum = sum.plus(u)
	}
	return sum, nil
}

// settle waits until each server knows all others and, if there are histories,
// who leads.
func (f *natsFarm) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the NATS servers do not come to know each other"))
	defer cancel()
	for _, node := range f.nodes {
		for !node.settled(ctx) {
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *natsNode) settled(ctx context.Context) bool {
	var routes natsRoutes
	if n.ask(ctx, "/routez", &routes) != nil {
		return false
	}
	known := make(map[string]bool)
	for _, r := range routes.Routes {
		known[r.Name] = true
	}
	if len(known) < len(n.farm.nodes)-1 {
		return false
	}
	var js struct {
		Meta struct {
			Leader string `json:"leader"`
		} `json:"meta_cluster"`
	}
	return !n.config.JetStream || n.ask(ctx, "/jsz", &js) == nil && js.Meta.Leader != ""
}

// ask reads one of the pages with figures of a server.
func (n *natsNode) ask(ctx context.Context, page string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", n.config.Monitor, page), http.NoBody)
	if err != nil {
		return err
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return json.NewDecoder(answer.Body).Decode(into)
}

func (f *natsFarm) Close() error {
	for _, node := range f.nodes {
		node.end()
	}
	for _, p := range f.clients {
		p.Close()
	}
	for _, p := range f.routes {
		p.Close()
	}
	return os.RemoveAll(f.dir)
}

// freePorts draws ports below those that systems use for outgoing connections
// and for proxies, so that nothing takes a server's port while it is down.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(22_000)))
		if err != nil {
			continue
		}
		defer l.Close() // all at the end, so that no port is drawn twice
		if ports = append(ports, l.Addr().(*net.TCPAddr).Port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports found on loopback")
}
