package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
)

// findServer returns the path of a server of 7.0 or newer, preferably the given
// one.
func findServer(ctx context.Context, prefer string) (string, error) {
	names := []string{"redis-server", "valkey-server"}
	if prefer == names[1] {
		names[0], names[1] = names[1], names[0]
	}
	var tooOld error
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
		if err == nil && newEnough(out) {
			return path, nil
		}
		tooOld = fmt.Errorf("%w; %s says: %s", ErrUnavailable, path, bytes.TrimSpace(out))
	}
	if tooOld != nil {
		return "", tooOld
	}
	return "", ErrUnavailable
}

var versionPattern = regexp.MustCompile(`server v=(\d+)\.`)

// newEnough reads a line such as "Redis server v=7.0.15 sha=…". 7.0 brought
// sharded Pub/Sub and --cluster-port.
func newEnough(version []byte) bool {
	m := versionPattern.FindSubmatch(version)
	if m == nil {
		return false
	}
	major, err := strconv.Atoi(string(m[1]))
	return err == nil && major >= 7
}

// processes is the platform whose nodes are processes on loopback.
type processes struct {
	path    string
	cluster bool
	dir     string

	mu       sync.Mutex
	launched []*processMachine
}

func newProcesses(path string, cluster bool) (platform, error) {
	dir, err := os.MkdirTemp("", "redistest-")
	return &processes{path: path, cluster: cluster, dir: dir}, err
}

func (p *processes) launch(ctx context.Context, i int, args []string) (machine, error) {
	var err error
	for range 10 {
		m := &processMachine{path: p.path, dir: filepath.Join(p.dir, strconv.Itoa(i))}
		os.RemoveAll(m.dir) // from the previous attempt: it contains the cluster's port
		if err = os.Mkdir(m.dir, 0o700); err != nil {
			return nil, err
		}
		if err = m.choosePorts(args, p.cluster); err != nil {
			return nil, err
		}
		p.mu.Lock()
		p.launched = append(p.launched, m)
		p.mu.Unlock()
		if err = m.start(ctx); err == nil {
			return m, nil
		}
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	return nil, err
}

func (p *processes) close(func(machine) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := each(p.launched, func(_ int, m *processMachine) error {
		if !m.running() {
			return nil
		}
		return m.signal(ctx, kill)
	})
	return errors.Join(err, os.RemoveAll(p.dir))
}

var (
	errPortTaken = errors.New("another process has taken the port")
	errNoNetwork = fmt.Errorf("nodes are processes on loopback, with no network to cut: this needs Docker: %w", errors.ErrUnsupported)
)

// processMachine is one node's process. If it has ended it may be started
// again, as a new process with the same ports and directory.
type processMachine struct {
	path, dir string
	args      []string
	port, bus int

	cmd    *exec.Cmd
	output *os.File
	ended  chan struct{} // closed when cmd has
	guard  *guard
}

func (m *processMachine) choosePorts(args []string, cluster bool) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	m.port, m.bus = ports[0], ports[1]
	m.args = append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(m.port), "--dir", m.dir}, args...)
	if cluster {
		m.args = append(m.args, "--cluster-port", m.busPort(), "--cluster-announce-ip", "127.0.0.1")
	}
	return nil
}

// freePorts draws ports below those that systems use for outgoing connections,
// so that nothing takes a node's port while the node is down. If two test
// processes draw the same port, a server fails to start.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 1000 {
		port := 10_000 + rand.IntN(22_000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close() // all at the end, so that no port is drawn twice
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free port found on loopback")
}

func (m *processMachine) addr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(m.port))
}

func (m *processMachine) busPort() string { return strconv.Itoa(m.bus) }

func (m *processMachine) hostAddr(context.Context) (string, error) {
	if !m.running() {
		return "", fmt.Errorf("node %s does not run", m.addr())
	}
	return m.addr(), nil
}

func (m *processMachine) running() bool {
	if m.ended == nil {
		return false
	}
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// start starts the process and waits until it listens, since only then is it
// certain that the ports are its own.
func (m *processMachine) start(ctx context.Context) error {
	var err error
	if m.output, err = os.Create(filepath.Join(m.dir, "log")); err != nil {
		return err
	}
	m.cmd = exec.Command(m.path, m.args...)
	m.cmd.Stdout, m.cmd.Stderr = m.output, m.output
	if err := m.cmd.Start(); err != nil {
		m.output.Close()
		return err
	}
	m.guard = newGuard(m.cmd.Process.Pid)
	m.ended = make(chan struct{})
	go m.wait() // ends with the process, which signal or processes.close ends
	return m.waitListening(ctx)
}

func (m *processMachine) wait() {
	m.cmd.Wait()
	m.guard.release()
	m.output.Close()
	close(m.ended)
}

func (m *processMachine) waitListening(ctx context.Context) error {
	return poll(ctx, "start "+m.path, func(ctx context.Context) error {
		ended := !m.running() // before the log is read, so that the log is complete
		log := m.logs(ctx)
		switch {
		case bytes.Contains([]byte(log), []byte("Ready to accept connections")):
			return nil
		case !ended:
			return errors.New("it does not accept connections yet")
		case bytes.Contains([]byte(log), []byte("already in use")):
			return final{errPortTaken}
		default:
			return final{fmt.Errorf("it has ended: %s", log)}
		}
	})
}

func (m *processMachine) signal(ctx context.Context, s serverSignal) error {
	if !m.running() {
		return fmt.Errorf("node %s does not run", m.addr())
	}
	if err := m.cmd.Process.Signal(processSignals[s]); err != nil {
		return err
	}
	if s == pause || s == unpause {
		return nil
	}
	select {
	case <-m.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("node %s does not end: %w", m.addr(), context.Cause(ctx))
	}
}

func (m *processMachine) cut(context.Context) error  { return errNoNetwork }
func (m *processMachine) heal(context.Context) error { return errNoNetwork }

func (m *processMachine) logs(context.Context) string {
	b, err := os.ReadFile(filepath.Join(m.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// A guard kills a server when the test process ends without doing so, as after
// a panic or a test's timeout. It is a shell that waits for the end of its
// input, which is closed when the test process ends.
type guard struct {
	cmd   *exec.Cmd
	input io.Closer
}

func newGuard(pid int) *guard {
	cmd := exec.Command("sh", "-c", `read -r _; kill -KILL "$0"`, strconv.Itoa(pid))
	input, err := cmd.StdinPipe()
	if err != nil || cmd.Start() != nil {
		return nil // tests work without a guard
	}
	return &guard{cmd, input}
}

// release ends the guard of a server that has ended.
func (g *guard) release() {
	if g == nil {
		return
	}
	g.cmd.Process.Kill() // before its input ends, since the pid may belong to another process by now
	g.cmd.Wait()
	g.input.Close()
}
