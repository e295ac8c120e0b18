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
// An adapter learns by rounds what all others have done. It asks on every
// partition, the backend says how many adapters have received the question, and
// the round is complete when that many have answered there. Adapters that ask
// or say something meanwhile count, too. An adapter that starts later asks
// before it does anything else, and waits until all have answered. So either it
// takes part in the rounds of all others, or it learns of the step.
//
// A Machine has no lock, clock, goroutine or I/O. Times are arguments.
package rollout
