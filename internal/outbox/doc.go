// Package outbox gathers the messages that a hub publishes to one channel into
// frames, and numbers them. It is group commit, as databases do it: while one
// frame is under way the next one fills, and it goes when the first has
// arrived. There is no timer, so an idle channel adds no latency. Under load,
// the slower the backend, the larger are the frames.
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
// A notice is what hubs tell each other, or a message that is not kept. It
// takes its turn like a frame, and has no number.
//
// The package has no lock, clock or goroutine. Begin, Gather, Queue, Withdraw
// and Next need the lock of the outbox's owner. Number and Done need no lock,
// and are called by the holder of the turn.
package outbox
