// Package adaptertest is the contract of adapter.Adapter as a test suite.
//
// Authors of a backend give [Run] a function that makes adapters, and learn
// which promises the backend does not keep:
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
// The cases are an ordered list, see [Cases]: look at the first that fails.
// Each is named after one promise and tests only that promise, as far as
// promises can be separated. A failure prints the promise and what was observed
// instead.
//
// [Faults] are optional functions that break things. A backend leaves those nil
// that it cannot perform, and the cases that need them are skipped and say so.
// A backend keeps the whole contract if it passes without waivers, with every
// fault that can happen to it. In the same way cases about an optional
// capability, adapter.HealthChecker, adapter.AsyncPublisher or
// adapter.Historian, are skipped for adapters without it.
//
// The suite makes some thousands of operations in all. It counts receivers, so
// nothing else may use the backend meanwhile.
package adaptertest
