package redistest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// A job says what runs in a container. Containers of one image can be used for
// any job, one after the other.
type job struct {
	image   string
	cluster bool
	args    []string // of the server, without its address
}

func (j *job) same(other *job) bool {
	return j.sameImage(other) && j.cluster == other.cluster && slices.Equal(j.args, other.args)
}

func (j *job) sameImage(other *job) bool { return j.image == other.image }

// command returns the line by which supervise is told the job.
func (j *job) command(ip netip.Addr) string {
	line := "set --"
	for _, arg := range announce(j.args, j.cluster, ip) {
		line += " '" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return line + "\n"
}

// supervise is a script that runs a server. If the server ends in order, as
// after SHUTDOWN, it waits for a line that sets the arguments of a new one,
// which knows no cluster. If the server is killed, or leaves data, the
// container ends; when the container starts again, so does that server. The
// server starts as the image would start it. (The image has no rm and no /tmp.)
const supervise = `trap 'kill -TERM $p; wait $p; exit' TERM
entry=$(command -v docker-entrypoint.sh)
while :; do
  [ ! -f job ] || . ./job
  $entry "$@" & p=$!
  wait $p || exit
  [ ! -e dump.rdb ] && [ ! -e appendonlydir ] || exit
  : >nodes.conf
  read -r job || exit
  printf '%s\n' "$job" >job
done`

// resetIn is how long a server may take to end when its fleet is closed, and
// freshIn how long the next one may take to answer.
const (
	resetIn = 2 * time.Second
	freshIn = 5 * time.Second
)

// become makes a container of the pool run a job, and waits until it does.
func (m *containerMachine) become(ctx context.Context, j *job) error {
	if !j.same(m.job) {
		m.job = j
		if err := m.reset(ctx); err != nil {
			return err
		}
	}
	return m.waitFresh(ctx)
}

// reset ends the server, and has supervise start a new one.
func (m *containerMachine) reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, resetIn)
	defer cancel()
	var c net.Conn
	err := poll(ctx, "connect to the server in a container", func(ctx context.Context) (err error) {
		c, err = m.connect(ctx) // it may have started just now
		return err
	})
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
	if err != nil {
		return err
	}
	return m.write(ctx, m.job.command(m.ip))
}

// write writes to the standard input of the container.
func (m *containerMachine) write(ctx context.Context, text string) error {
	a, err := m.b.docker.ContainerAttach(ctx, m.c.GetContainerID(), client.ContainerAttachOptions{Stream: true, Stdin: true})
	if err != nil {
		return err
	}
	defer a.Close()
	_, err = io.WriteString(a.Conn, text)
	return err
}

// waitFresh waits until a new server answers, and returns an error if it is not
// as one that was just started.
func (m *containerMachine) waitFresh(ctx context.Context) error {
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
			if fresh.command == "CLUSTER INFO" && !m.job.cluster {
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
