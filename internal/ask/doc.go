// Package ask decides how hubs ask each other questions, and answer them.
// Commands are questions, too.
//
//	asker: Question                              hub: Commands, Pages
//
//	Start ─── Send: the question, attempt 0 ───▶ Arrive ─▶ Run
//	Sent  ◀── "2 hubs got it"                              │
//	Answer ◀────────────── page 0, 1, … ◀───────────────── Add
//	Consumed ─── Credit: from, upto ───────────▶ Credit
//	Done  ◀─────────────── last page ◀──────────────────── Add(last)
//
// [Question] knows when an asker has everything: when as many hubs as got a
// question have answered it, and those that must have got it
// ([Question.Expect]); or, where the backend does not count, all hubs that are
// there and say that they listen; and when each has sent its last page or is
// gone. A question that is late is sent again. Attempts are numbered, so that
// the count of an attempt is compared with the answers to that attempt. The
// states of a hub:
//
//	Silent ─ Answer, not the last ─▶ Answering ─ the last page ─▶ Finished
//	   └───────────── Gone ──────────────┴──▶ Ended
//
// [Commands] runs a question once, however often and in however many channels
// it comes. [Pages] sends an answer of any length in pages, no more than the
// asker has room for, and sends lost pages again.
//
// The package has no lock, clock, goroutine or I/O.
package ask
