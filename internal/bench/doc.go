// Bench measures fanout beside its peers, and beside the limits of what it is
// built on, in one run, in turns:
//
//	go run -C internal/bench . local
//	go run -C internal/bench . -rounds 7 -pictures pictures redis cluster
//	go run -C internal/bench . -rounds 3 -markdown choosing
//
// A suite is a list of cases, a case a list of contestants that do the same
// work. In each round every contestant of a case has its turn, in an order that
// changes from round to round. The result is the median of the rounds, with the
// ratio to the contestant that the case names as its measure. Machines are
// noisy and differ: trust ratios within one run, and no figure by itself.
//
// Targets are ratios (or, for sizes, values) that the project has set itself.
// They are printed as met or not, with what was measured.
//
// Redis servers run as processes if a redis-server is on the PATH, otherwise in
// containers. NATS servers are further processes of this program. Bench is a
// module of its own, so that users of fanout do not download its peers.
//
// The files: main.go reads flags, suite.go defines what suites consist of,
// run.go runs them, table.go, markdown.go and picture.go show the results,
// meter.go measures processor time and memory, servers.go starts Redis. Each
// suite has a file of its name, and each peer one that begins with peer_.
package main
