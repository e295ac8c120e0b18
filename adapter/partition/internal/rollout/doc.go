// Package rollout decides, for one adapter of package partition, when it takes
// the next step of a change from one set of partitions to another. Adapters
// tell each other their [State], and none takes a step before all have taken
// the one before:
//
//	         answered          Want           done           all Ready
//	Learning ────────▶ Steady ──────▶ Opening ─────▶ Ready ──────────▶ Drained
//	                     ▲                                               │
//	  all Switched, done │       all Flushed             all Drained     │
//	                  Switched ◀───────────── Flushed ◀──────────────────┘
//
// "All" is found out by rounds: an adapter asks on every partition, the backend
// says how many have got the question, and the round is complete when as many
// have answered there. Hubs that ask or say something meanwhile count, too. An
// adapter that comes later asks before it does anything, and waits until all
// have answered; so either it is in the round of everybody else, or it learns
// of the step.
//
// A Machine has no lock, clock, goroutine or I/O. Times are arguments.
package rollout
