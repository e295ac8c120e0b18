package redistest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// NewCluster starts a cluster that is closed when the test ends. If no servers
// can run here it skips the test.
func NewCluster(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	c, err := StartCluster(tb.Context(), o)
	Must(tb, err)
	tb.Cleanup(func() { closeIn(tb, c) })
	return c
}

// NewServer starts a single server that is closed when the test ends. If none
// can run here it skips the test.
func NewServer(tb testing.TB, o Options) *Server {
	tb.Helper()
	s, err := StartServer(tb.Context(), o)
	Must(tb, err)
	tb.Cleanup(func() { closeIn(tb, s) })
	return s
}

func closeIn(tb testing.TB, c interface{ Close() error }) {
	tb.Helper()
	if err := c.Close(); err != nil {
		tb.Errorf("close the servers of the test: %v", err)
	}
}

// Must ends the test if a fault or another step failed. If the step is not
// possible here, such as cutting the network of processes, or starting servers
// where there are none, it skips the test.
func Must(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable), errors.Is(err, errors.ErrUnsupported):
		tb.Skipf("skipped: %v", err)
	default:
		tb.Fatal(err)
	}
}

// SharedCluster returns a function by which the tests of a package get the same
// cluster. The first call starts it. After each test that called it, faults of
// nodes are repaired and the cluster is healthy again; so tests that cause
// faults must not run in parallel with others of that cluster. When no test has
// had it for a while it is closed, and the next call starts another one: idle
// nodes of many clusters take processor time from tests. Main closes the rest.
func SharedCluster(o Options) func(testing.TB) *Cluster {
	return share(func(ctx context.Context) (*Cluster, error) { return StartCluster(ctx, o) })
}

// SharedServer is SharedCluster for a single server.
func SharedServer(o Options) func(testing.TB) *Server {
	return share(func(ctx context.Context) (*Server, error) { return StartServer(ctx, o) })
}

// SharedClusters is SharedCluster with a cluster for each image.
func SharedClusters(o Options) func(tb testing.TB, image string) *Cluster {
	return perImage(o, SharedCluster)
}

// SharedServers is SharedServer with a server for each image.
func SharedServers(o Options) func(tb testing.TB, image string) *Server {
	return perImage(o, SharedServer)
}

func perImage[T shareable](o Options, share func(Options) func(testing.TB) T) func(testing.TB, string) T {
	var mu sync.Mutex
	of := make(map[string]func(testing.TB) T)
	return func(tb testing.TB, image string) T {
		tb.Helper()
		mu.Lock()
		get := of[image]
		if get == nil {
			o := o
			o.Image = image
			get = share(o)
			of[image] = get
		}
		mu.Unlock()
		return get(tb)
	}
}

// Main runs a package's tests, closes the servers that they shared, and fails
// if goroutines are left. It exits; call it from TestMain. Tests that call
// t.Parallel run [parallel] at a time for each processor. Containers are used
// for several servers, one after the other.
func Main(m *testing.M, opts ...goleak.Option) {
	flag.Parse()
	if err := runParallel(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	recycled.begin()
	code := m.Run()
	if err := errors.Join(closeShared(), recycled.end()); err != nil {
		fmt.Fprintf(os.Stderr, "close the servers that tests shared: %v\n", err)
		code = 1
	}
	if code == 0 {
		if err := leaks(opts); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines are left after all tests: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// parallel is how many parallel tests run at a time for each processor. They
// mostly wait for servers; but each may have a cluster of six nodes, and those
// have to answer in time.
const parallel = 2

// runParallel sets -parallel, unless the command line does.
func runParallel() error {
	const name = "test.parallel"
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	if set {
		return nil
	}
	return flag.Set(name, strconv.Itoa(parallel*runtime.GOMAXPROCS(0)))
}

// leaveTime is how long goroutines may take to end after the tests. The client
// closes connections to nodes that have left the cluster after 5 s, in a
// goroutine that sleeps until then.
const leaveTime = 10 * time.Second

// leaks returns an error if goroutines are left that do not end in time.
// Goroutines of an HTTP client's connection do not count, since the library has
// no HTTP client: tests have one, and testcontainers makes one for each
// container, which once in many runs keeps an idle connection.
func leaks(opts []goleak.Option) (err error) {
	opts = append(slices.Clone(opts),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
	for end := time.Now().Add(leaveTime); time.Now().Before(end); {
		if err = goleak.Find(opts...); err == nil { // it waits for a while itself
			return nil
		}
	}
	return err
}
