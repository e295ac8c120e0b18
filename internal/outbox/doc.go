// Package outbox gathers the messages that a hub publishes to one channel into
// frames, and numbers them. It is group commit, as databases do it: while one
// frame is under way the next one fills, and it goes when the first has
// arrived. There is no timer, so an idle channel adds no latency, and under
// load frames are as large as the backend is slow.
//
//	           ┌──────┐  Begin   ┌─────────┐
//	           │ Idle │ ───────▶ │ Sending │ ◀─┐
//	           └──────┘ ◀─────── └─────────┘   │ Next: a frame had gathered
//	               Next: none had     │        │
//	                                  └────────┘
//
//	Gather ─▶ pending: [frame] [frame] … ─Next─▶ Number ─▶ (sent) ─▶ Done
//
// The caller that turns Idle into Sending holds the turn: it numbers a frame,
// sends it, tells Done what became of it, and asks Next for another. The
// numbers of a frame that nobody can have seen are used again. Those of a frame
// that may have arrived are not: if it did not arrive, receivers count its
// messages as missing.
//
// A notice has its turn like a frame, and no number: it is what hubs tell each
// other beside messages.
//
// The package has no lock, clock or goroutine. Begin, Gather, Queue, Withdraw
// and Next need the lock of the outbox's owner. Number and Done are the turn
// holder's, without a lock.
package outbox
