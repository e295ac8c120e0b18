// Bench measures fanout beside its peers and the bare limits of what it stands
// on, in one run, in turns:
//
//	go run -C internal/bench . local
//	go run -C internal/bench . -rounds 7 -pictures pictures redis cluster
//
// A suite is a list of cases, a case a list of contestants who do the same work.
// In each round every contestant of a case has its turn, the order changing from
// round to round, and what is printed is the median of the rounds, with the
// ratio to the contestant that the case names as its measure. Machines are noisy
// and differ: trust ratios within one run, and no figure by itself.
//
// Targets are ratios (or, where the thing itself is a size, sizes) that the
// project has set itself. They are printed as met or not, with what was measured.
//
// Redis servers are started as processes where a redis-server is on the PATH,
// else in containers. The module is one of its own, so that who uses fanout gets
// none of its peers.
//
// The files: main.go reads flags, suite.go says what suites are made of, run.go
// runs them, table.go and picture.go show the results, meter.go measures processor
// time and memory, servers.go starts Redis. Each suite has a file of its name,
// and each peer one that begins with peer_.
package main
