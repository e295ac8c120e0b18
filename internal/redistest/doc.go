// Package redistest runs real Redis and Valkey servers for tests, single
// servers and clusters, and breaks them on purpose.
//
//	c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
//	client := c.Client(t)
//	redistest.Must(t, c.Owner(redistest.Slot("room")).Kill(t.Context()))
//	redistest.Must(t, c.WaitHealthy(t.Context())) // the replica has taken over
//
// # Where the servers run
//
// Each node has a container of its own, and announces its address in a network
// of containers. Where that can be dialed, as on the machine of the daemon,
// clients of this package do. Elsewhere they are connected to the port that is
// published for it at that time.
//
// A container that a test no longer needs is used again by another test: its
// server is ended, and a new one started. See [Main].
//
// Without Docker, but with a redis-server or valkey-server of 7.0 or newer on
// the PATH, nodes are processes on loopback, and everything but [Node.Cut]
// works the same. Without either, tests skip and say what to install.
//
// Two environment variables change that:
//
//	FANOUT_REQUIRE_DOCKER=1   anything but containers fails the test, as in CI
//	FANOUT_TEST_PROCESSES=1   processes even where there is Docker
//
// # How much is tested
//
// By default, as in make test, tests run only on servers of [DefaultImage], and
// tests that take long are skipped. FANOUT_TEST_ALL=1, as in make test-all,
// adds the other servers and the long tests: see [Images], [Long] and [Rounds].
//
// # Servers that tests share
//
// A cluster takes a few seconds to start; two of them are a rule of the server,
// by which a node that has just started serves nothing. So the tests of a
// package share servers where they can:
//
//	var cluster = redistest.SharedCluster(redistest.Options{Primaries: 3})
//
//	func TestMain(m *testing.M) { redistest.Main(m) } // closes them, finds leaks
//
//	func TestRoom(t *testing.T) { c := cluster(t) ... }
//
// The first test that asks for the cluster starts it. When a test that broke
// something ends, the cluster is repaired: nodes run and reach each other
// again, but slots and roles stay where the test has left them. Ask
// [Cluster.Owner] and [Cluster.Primaries] instead of relying on an order.
//
// # Faults
//
// Faults of a node are methods of [Node], and affect all clients. Faults of a
// [Net] affect only its client. All of them return an error; [Must] ends the
// test if it is not nil, and skips the test if the fault is not possible here
// (processes have no network to cut).
package redistest
