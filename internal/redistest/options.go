package redistest

import (
	"crypto/tls"
	"strconv"
	"strings"
	"time"
)

// Options say what to start. The zero value is a cluster of three primaries.
type Options struct {
	// Image is the container image; DefaultImage by default. Processes run
	// whatever server is on the PATH, preferably valkey-server if Image is
	// Valkey's.
	Image string

	Primaries int // 3 by default
	Replicas  int // of each primary; none by default

	// NodeTimeout is how long a node is silent before the others consider it
	// failed. It is 2 s by default, so that failovers are quick, and a paused
	// test machine does not cause them.
	NodeTimeout time.Duration

	// Args are added to the server's command line, such as
	// "--client-output-buffer-limit", "pubsub 1mb 0 0". They override ours.
	Args []string

	files map[string][]byte // in each container, by their paths
	tls   *tls.Config       // with which nodes are reached; nil: without TLS
}

func (o Options) withDefaults() Options {
	if o.Image == "" {
		o.Image = DefaultImage
	}
	if o.Primaries == 0 {
		o.Primaries = 3
	}
	if o.NodeTimeout == 0 {
		o.NodeTimeout = 2 * time.Second
	}
	return o
}

// binary is the name of the server's program.
func (o Options) binary() string {
	if strings.Contains(o.Image, "valkey") {
		return "valkey-server"
	}
	return "redis-server"
}

// serverArgs returns the arguments that do not depend on where the server runs.
func (o Options) serverArgs(cluster bool) []string {
	args := []string{
		"--protected-mode", "no",
		"--save", "", "--appendonly", "no", "--rdb-del-sync-files", "yes",
		// By default the server waits five seconds for more replicas.
		"--repl-diskless-sync-delay", "0",
		// CLUSTER SHARDS calls a replica "loading", and clients avoid it, until
		// its offset changes, which by default takes ten seconds.
		"--repl-ping-replica-period", "1",
	}
	if cluster {
		args = append(args, "--cluster-enabled", "yes",
			"--cluster-node-timeout", strconv.FormatInt(o.NodeTimeout.Milliseconds(), 10))
	}
	return append(args, o.Args...)
}
