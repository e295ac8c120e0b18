package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// ErrUnavailable means that this machine has neither Docker nor a server
// program, so nothing can be started.
var ErrUnavailable = errors.New("no Redis server can be run here: install Docker " +
	"(on Debian and Ubuntu: .ci/docker-up), or put a redis-server or valkey-server " +
	"of 7.0 or newer on the PATH (apt install redis-server, brew install redis)")

// A platform is where nodes run. It makes a machine for each node.
type platform interface {
	// launch starts the i-th server, with args that do not depend on the
	// machine, and returns when it runs, perhaps before it accepts connections.
	launch(ctx context.Context, i int, args []string) (machine, error)

	// close removes everything that launch has left, even if it failed. It may
	// keep machines that are sound for later: those whose servers run and can
	// be reached.
	close(sound func(machine) bool) error
}

// A machine runs one server. Its methods are called one at a time.
type machine interface {
	addr() string                                 // as announced; it never changes
	hostAddr(ctx context.Context) (string, error) // where to dial, now
	start(ctx context.Context) error              // again, after stop or kill
	signal(ctx context.Context, s serverSignal) error
	cut(ctx context.Context) error
	heal(ctx context.Context) error
	busPort() string // for CLUSTER MEET; empty if it is the usual one
	logs(ctx context.Context) string
}

type serverSignal int

const (
	terminate serverSignal = iota // and wait until it has ended
	kill                          // likewise
	pause
	unpause
)

// newPlatform chooses where the nodes of one cluster run.
func newPlatform(ctx context.Context, o Options, cluster bool) (platform, error) {
	docker := os.Getenv("FANOUT_REQUIRE_DOCKER") == "1"
	processes := os.Getenv("FANOUT_TEST_PROCESSES") == "1"
	if docker && processes {
		return nil, errors.New("FANOUT_REQUIRE_DOCKER=1 and FANOUT_TEST_PROCESSES=1 contradict each other")
	}
	if !processes {
		err := dockerHealth()
		if err == nil {
			return newContainers(ctx, o, cluster)
		}
		if docker {
			return nil, fmt.Errorf("FANOUT_REQUIRE_DOCKER=1, but there is no Docker: %w", err)
		}
	}
	if o.files != nil {
		return nil, fmt.Errorf("servers with files need containers: %w", errors.ErrUnsupported)
	}
	path, err := findServer(ctx, o.binary())
	if err != nil {
		return nil, err
	}
	return newProcesses(path, cluster)
}
