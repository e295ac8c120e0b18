// Package flip decides, for one hub, where it publishes during a migration, and
// has all hubs change at one point of the order.
//
//	          join is in the log        pause n             commit is entry n
//	Asking ───────────────────▶ Both ─────────────▶ Pausing ───────────▶ Flipped
//	   ▲                         │ ▲                   │
//	   └── not heard of oneself ─┘ └──── anything else is entry n
//
// The hubs share a log at the old backend, a history whose entries they append
// with the entry's number: of several hubs that append entry n, one succeeds.
// A hub that starts appends a join before it publishes anything. A hub that
// leads appends a commit as entry n, when every hub has stopped publishing for
// the attempt n. A hub that loses patience appends an abort as entry n. So a
// hub that joins meanwhile, or that was not asked, makes the attempt fail, and
// what entry n is all hubs can read.
//
// The hub with the lowest ID leads, as far as each knows. If two lead at once
// one of them fails.
//
// A hub that has not heard its own announcements for a while publishes nothing
// until it has joined again: others may take it for gone after a longer while.
//
// A Node has no lock, clock, goroutine or I/O. Its owner calls Next after every
// event, and does what that says.
package flip
