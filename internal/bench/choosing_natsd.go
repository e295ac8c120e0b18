package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsCommand is the first argument of a process of this program that is to be
// a NATS server. The second one is its natsConfig.
const natsCommand = "nats-server"

// A natsConfig is the configuration of a server.
type natsConfig struct {
	Name                     string
	Client, Cluster, Monitor int // ports
	Routes                   []string
	JetStream                bool
	Dir                      string
}

// serveNATS is a NATS server, until its standard input ends: then the process
// that has started it has ended.
func serveNATS(config string) error {
	var c natsConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	o := &server.Options{
		ServerName: c.Name, Host: "127.0.0.1", Port: c.Client, HTTPHost: "127.0.0.1", HTTPPort: c.Monitor,
		JetStream: c.JetStream, StoreDir: c.Dir, MaxPayload: 8 << 20, MaxPending: 1 << 30,
		PingInterval: time.Second, MaxPingsOut: 2, WriteDeadline: 2 * time.Second, NoLog: true, NoSigs: true,
		Cluster: server.ClusterOpts{Name: "bench", Host: "127.0.0.1", Port: c.Cluster, NoAdvertise: true, Advertise: "127.0.0.1:1"},
	}
	for _, route := range c.Routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: route})
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		return errors.New("the server does not become ready")
	}
	fmt.Fprintf(os.Stderr, "listening addr=%s\n", s.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	return err
}

// A natsNode is a server of a natsFarm. It is a faultyNode.
type natsNode struct {
	farm    *natsFarm
	index   int
	config  natsConfig
	addr    string // for clients
	process *process
	input   io.Closer // of the process
}

// Start starts the process, and waits until it listens.
func (n *natsNode) Start(ctx context.Context) error {
	config, err := json.Marshal(n.config)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p := &program{name: "NATS server " + n.config.Name, command: []string{self, natsCommand, string(config)}}
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	n.process, err = p.startWith(context.WithoutCancel(ctx), func(c *exec.Cmd) { c.Stdin = reader })
	reader.Close()
	if err != nil {
		writer.Close()
		return err
	}
	n.input = writer
	return nil
}

// end kills the process, if there is one.
func (n *natsNode) end() {
	if n.process != nil {
		n.process.stop()
		n.input.Close()
		n.process = nil
	}
}

// Kill kills the process, and keeps what it has stored.
func (n *natsNode) Kill(context.Context) error {
	n.end()
	return nil
}

// Pause stops the process: connections stay open, and nothing is answered.
func (n *natsNode) Pause(context.Context) error { return n.process.cmd.Process.Signal(syscall.SIGSTOP) }

// Unpause lets the process go on.
func (n *natsNode) Unpause(context.Context) error {
	return n.process.cmd.Process.Signal(syscall.SIGCONT)
}

// Cut makes the ways between the server, the others, and clients silent.
func (n *natsNode) Cut(context.Context) error {
	n.hold(true)
	return nil
}

// Heal ends Cut.
func (n *natsNode) Heal(context.Context) error {
	n.hold(false)
	return nil
}

func (n *natsNode) hold(silent bool) {
	n.farm.clients[n.index].Hold(silent)
	for between, p := range n.farm.routes {
		if between[0] == n.index || between[1] == n.index {
			p.Hold(silent)
		}
	}
}
