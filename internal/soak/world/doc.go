// Package world runs hubs, publishers and clients on servers, has faults happen
// to the servers and the hubs, and records what publishers were told and
// clients received, for package check to verify.
//
//	servers ── Open ──> hub 0, 1, 2          each has a publisher in each room,
//	   ^                 ^                   and a resident: a client that is
//	   │                 │                   always in all rooms
//	   └──── Fault ──────┘       movers: clients that join, leave, resume, and
//	                                     connect to another hub
//
// A run is: the residents join, the publishers start, each fault happens and
// ends, everybody hears everybody again, nobody moves until all clients know
// who is in the rooms with presence, the publishers publish their last message,
// and all clients receive it.
//
// The package knows no backend. Package soak, and the tests of backends in
// modules of their own, say what the servers are and what can happen to them.
package world
