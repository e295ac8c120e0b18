// Package flip decides, for one hub, where it publishes during a migration, so
// that all hubs change at the same point of the order.
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
// the attempt n. A hub that has waited too long appends an abort as entry n. So
// the attempt also fails if a hub joins meanwhile or was not asked, and all
// hubs can read in entry n how it ended.
//
// Each hub takes the one with the lowest ID that it knows for the leader. If
// two hubs lead at once, only one of them succeeds.
//
// A hub that has not heard its own announcements for a while publishes nothing
// until it has joined again: after a longer silence the others may take it for
// gone.
//
// A Node has no lock, clock, goroutine or I/O. Its owner calls Next after every
// event, and does what that says.
package flip
