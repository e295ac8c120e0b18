// Package feed decides whether a replica still gets everything that is
// published at its primary. It has no lock, clock, goroutine, I/O or client: a
// session at a replica tells a [Feed] what happened.
//
// A primary passes what is published on to its replicas over one connection of
// the cluster bus for each replica. Nothing on that connection is numbered or
// acknowledged: when it breaks, what was on its way is lost, and neither the
// publisher nor the subscribers at the replica are told. Two kinds of evidence
// replace the count of receivers, by which a publisher finds out such things at
// a primary:
//
//   - A [View] is what the replica says of itself: who its primary is, and
//     since when that primary's connection has existed. While views are equal,
//     nothing was lost between them, since a connection of TCP loses nothing.
//   - Probes are messages that the session publishes at the primary, with
//     numbers, and receives from the replica. They show that the connection of
//     the view is the one that messages take, and that they arrive in time. A
//     number that is left out shows a loss of any other kind.
//
// The states:
//
//	         View               Heard             View, the same
//	Unknown ──────► Connected ─────────► Answered ─────────────► Fed
//	   │                │                   │                     │
//	   └────────────────┴───────────────────┴─────────────────────┘
//	     View: another one, or that of no replica; a probe was left
//	     out; probes or views are late: an error, and the session ends
//
// Only in Fed are subscriptions confirmed. The order of the steps matters:
// a probe that is heard between two equal views came over the connection of
// those views.
package feed
