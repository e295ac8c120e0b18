// Package replay brings members to the log of a room with a history: members
// that resume at a position, and members that fell out of the window. It
// assembles what they get from the recent messages that the hub has, from pages
// that were read for others, and from new readings.
//
//	history:  ├────────────────────────────────────────────┤
//	            ├─ pages, read for members ─┤    ▲
//	                              ├─ recent ─────┼──────────┤
//	                                             │   log: … 41 42 43 │ what comes
//	          at ──▶ part ──▶ part ──▶ part ─────┘                   ▲
//	          where the member is              parts end where the log stands
//
// A [Replay] is one member on its way. It goes a [Part] at a time: a gap, then
// messages. [Store.Assemble] gives it the next part, or a [Verdict] that says
// what is needed first:
//
//	Complete        the replay has a part; if it has Met, the log continues after it
//	NeedsReading    the history is to be read: join the Readings
//	LogBehind       the log is to catch up: ask again when it has
//	AheadOfHistory  nobody has published what the position stands for
//	Unreadable      the history cannot be read
//
// Members share readings. One reading at a time serves as many waiting members
// as it can: see [Readings].
//
// Nothing here has a lock, clock, goroutine or I/O. The owner's lock guards it.
// Times are arguments, in nanoseconds of a clock that nobody sets.
package replay
