package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A pool keeps containers whose fleet was closed for fleets that start later.
// To start a container and to remove it takes some 0.6 s of processor time, and
// the tests of a package need hundreds. What stays is the container and its
// address: the server was ended, and supervise has started a new one, without
// data and, in a cluster, with a new ID.
//
// [Main] opens the pool, and closes it. While it is open all fleets share a
// network.
type pool struct {
	mu     sync.Mutex
	open   bool
	bridge *bridge             // nil before the first fleet
	idle   []*containerMachine // the one that waits longest is the first
	timer  *time.Timer         // of the next prune
	failed error               // of prunes

	removing sync.WaitGroup // Add is called with mu held, while the pool is open
}

var recycled pool

// The pool keeps at most keptContainers containers, each for keptContainer. A
// server that waits takes some 0.2 % of a processor.
const (
	keptContainers = 32
	keptContainer  = time.Minute
)

// supervise is a script that runs a server. If the server ends in order, as
// after SHUTDOWN, a new one starts that knows no cluster. If it is killed the
// container ends. The server starts as the image would start it.
const supervise = `trap 'kill -TERM $p; wait $p; exit' TERM
entry=$(command -v docker-entrypoint.sh)
while :; do $entry "$@" & p=$!; wait $p || exit; : >nodes.conf; done`

// begin opens the pool.
func (p *pool) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = true
}

// network returns the network that fleets share; nil if the pool is not open.
func (p *pool) network(ctx context.Context) (*bridge, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open || p.bridge != nil {
		return p.bridge, nil
	}
	var err error
	p.bridge, err = newBridge(ctx)
	return p.bridge, err
}

// put gives the pool containers whose servers have been ended. It returns those
// that the caller has to remove, if there are too many.
func (p *pool) put(all []*containerMachine) (surplus []*containerMachine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return all
	}
	for _, m := range all {
		m.idleSince = time.Now()
	}
	p.idle = append(p.idle, all...)
	if n := len(p.idle) - keptContainers; n > 0 {
		surplus = slices.Clone(p.idle[:n])
		p.idle = slices.Delete(p.idle, 0, n)
	}
	p.schedule()
	return surplus
}

// take returns a container that runs the same, or nil.
func (p *pool) take(key string) *containerMachine {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, m := range p.idle {
		if m.key == key {
			p.idle = slices.Delete(p.idle, i, i+1)
			return m
		}
	}
	return nil
}

// schedule makes prune run when the first container has waited for
// keptContainer.
func (p *pool) schedule() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if len(p.idle) > 0 && p.open {
		p.timer = time.AfterFunc(time.Until(p.idle[0].idleSince.Add(keptContainer)), p.prune)
	}
}

// prune removes containers that nobody has needed for keptContainer.
func (p *pool) prune() {
	p.mu.Lock()
	if !p.open { // end removes them
		p.mu.Unlock()
		return
	}
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].idleSince) >= keptContainer {
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	p.schedule()
	p.removing.Add(1)
	p.mu.Unlock()
	defer p.removing.Done()
	if err := removeAll(old); err != nil {
		p.mu.Lock()
		p.failed = errors.Join(p.failed, err)
		p.mu.Unlock()
	}
}

// end closes the pool, and removes its containers and its network. Fleets have
// been closed before.
func (p *pool) end() error {
	p.mu.Lock()
	p.open = false
	p.schedule()
	idle, b := p.idle, p.bridge
	p.idle, p.bridge = nil, nil
	p.mu.Unlock()
	p.removing.Wait()
	err := errors.Join(p.failed, removeAll(idle))
	if b == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(err, b.close(ctx))
}

// removeAll removes containers. It gives up when the daemon does not answer.
func removeAll(all []*containerMachine) error {
	var errs []error
	for _, m := range all {
		err := m.remove()
		if errs = append(errs, err); errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return errors.Join(errs...)
}

// resetIn is how long a server may take to end when its fleet is closed, and
// freshIn how long the next one may take to answer.
const (
	resetIn = 2 * time.Second
	freshIn = 5 * time.Second
)

// reset ends the server, and so makes supervise start a new one.
func (m *containerMachine) reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, resetIn)
	defer cancel()
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "SHUTDOWN NOSAVE NOW FORCE\r\n"); err != nil {
		return err
	}
	refusal, err := io.ReadAll(c) // until the connection ends
	if err == nil && len(refusal) > 0 {
		err = fmt.Errorf("SHUTDOWN: %s", refusal)
	}
	return err
}

// waitFresh waits until a new server answers, and returns an error if it is not
// as one that was just started.
func (m *containerMachine) waitFresh(ctx context.Context, cluster bool) error {
	ctx, cancel := context.WithTimeout(ctx, freshIn)
	defer cancel()
	return poll(ctx, "wait for a new server in a container", func(ctx context.Context) error {
		c, err := m.connect(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		r := bufio.NewReader(c)
		for _, fresh := range []struct{ command, field, value string }{
			{"INFO keyspace", "db0", ""},
			{"INFO replication", "role", "master"},
			{"INFO replication", "connected_slaves", "0"},
			{"CLUSTER INFO", "cluster_known_nodes", "1"},
			{"CLUSTER INFO", "cluster_slots_assigned", "0"},
		} {
			if fresh.command == "CLUSTER INFO" && !cluster {
				continue
			}
			info, err := query(c, r, fresh.command)
			if err != nil {
				return err
			}
			if is := field(info, fresh.field); is != fresh.value {
				return final{fmt.Errorf("%s: %s is %q", fresh.command, fresh.field, is)}
			}
		}
		return nil
	})
}

// connect dials the server, for a second at most.
func (m *containerMachine) connect(ctx context.Context) (net.Conn, error) {
	addr, err := m.hostAddr(ctx)
	if err != nil {
		return nil, err
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); ok {
		c.SetDeadline(end)
	}
	return c, nil
}

// query sends a command and returns the reply, which is a text.
func query(w io.Writer, r *bufio.Reader, command string) (string, error) {
	if _, err := io.WriteString(w, command+"\r\n"); err != nil {
		return "", err
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), "$"))
	if err != nil {
		return "", fmt.Errorf("%s: %s", command, line)
	}
	text := make([]byte, n+2) // with the end of the line
	_, err = io.ReadFull(r, text)
	return string(text), err
}
