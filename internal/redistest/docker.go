package redistest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"
)

// dockerHealth reports whether containers can run. It asks once in a process,
// and then removes what dead processes have left behind.
var dockerHealth = sync.OnceValue(func() error { return bounded(askDocker) })

// bounded calls a function that has no bound of its own, and gives up after
// patience: a daemon that hangs still accepts requests. The function then goes
// on until the process ends.
func bounded(ask func() error) error {
	answered := make(chan error, 1)
	go func() { answered <- ask() }()
	select {
	case err := <-answered:
		return err
	case <-time.After(patience):
		return fmt.Errorf("no answer from Docker within %v", patience)
	}
}

func askDocker() (err error) {
	defer func() { // testcontainers panics if it finds no Docker at all
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	tclog.SetDefault(tclog.NewNoopLogger())
	// The reaper of testcontainers is a container with an image of its own,
	// which not every machine can pull. The sweep does not need it.
	if _, set := os.LookupEnv(reaperSwitch); !set {
		os.Setenv(reaperSwitch, "true")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p, err := testcontainers.NewDockerProvider()
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Health(ctx); err != nil {
		return err
	}
	return sweep(ctx, p.Client())
}

const (
	reaperSwitch = "TESTCONTAINERS_RYUK_DISABLED"
	ownerLabel   = "fanout.redistest.owner" // host/pid of the test process
)

func labels() map[string]string {
	l := maps.Clone(testcontainers.GenericLabels())
	l[ownerLabel] = owner(os.Getpid())
	return l
}

func owner(pid int) string {
	host, _ := os.Hostname()
	return host + "/" + strconv.Itoa(pid)
}

// dead reports whether an object with these labels was left behind by a process
// of this host that no longer exists.
func dead(labels map[string]string) bool {
	_, s, _ := strings.Cut(labels[ownerLabel], "/")
	pid, err := strconv.Atoi(s)
	if err != nil || labels[ownerLabel] != owner(pid) {
		return false
	}
	p, err := os.FindProcess(pid)
	return err == nil && errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

// sweep removes containers and networks of test processes that ended without
// doing so, as after a panic or a test's timeout. Two processes may sweep at
// the same time, so errors in removing are ignored.
func sweep(ctx context.Context, docker client.APIClient) error {
	ours := make(client.Filters).Add("label", ownerLabel)
	containers, err := docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: ours})
	if err != nil {
		return err
	}
	for _, c := range containers.Items {
		if dead(c.Labels) {
			docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		}
	}
	networks, err := docker.NetworkList(ctx, client.NetworkListOptions{Filters: ours})
	if err != nil {
		return err
	}
	for _, n := range networks.Items {
		if dead(n.Labels) {
			docker.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		}
	}
	return nil
}
