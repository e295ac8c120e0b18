// Package adaptertest is the contract of adapter.Adapter as a test suite.
//
// Whoever writes a backend gives [Run] a function that makes adapters, and
// learns in which point the backend does not keep its promises:
//
//	func TestContract(t *testing.T) {
//		adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
//			server := startServer(t)
//			var nodes adaptertest.Nodes
//			for range n {
//				nodes.Adapters = append(nodes.Adapters, mybackend.New(server.Addr))
//			}
//			nodes.Faults.Break = func(ctx context.Context, node int) error {
//				return server.KillConnections(ctx, node)
//			}
//			return nodes
//		}, nil)
//	}
//
// The cases are an ordered list, see [Cases]: the first to fail is the one to
// look at. Each is named for one promise and tests that promise alone, as far
// as promises can be told apart; a failure prints the promise and what was seen
// in its place.
//
// [Faults] are optional functions that break things: what a backend cannot do
// is left nil, and the cases that need it are skipped and say so. A backend
// keeps the whole contract if it passes with no waivers, and no fault missing
// that can befall it. In the same way the cases about an optional capability,
// adapter.HealthChecker or adapter.Historian, are skipped for adapters without it.
//
// The suite is as hard on a backend as it must be to find mistakes, and no
// harder: some thousands of operations in all. It needs a backend that nobody
// else uses meanwhile, because it counts receivers.
package adaptertest
