// Package questions has a hub ask others, and answer them. It drives packages
// ask and control, and keeps the questions to members that are not answered.
//
//	Ask ─▶ asking ─── the question ──▶ Put ─▶ queue ─▶ answering ─▶ Env.Perform
//	          ▲                                            │
//	          └─ queue ◀─ Put ◀─────── pages of answers ───┘
//
// The adapter's reader only puts questions, answers and what belongs to them
// into the queue of a [Switchboard]: hellos, and announcements of presence, are
// dealt with where they come. One goroutine, which ends when the queue is
// empty, takes them out, in order, and hands them to those that ask or answer.
// Ask runs on the goroutine of its caller; each question that is answered has a
// goroutine. What is sent is sent by goroutines of its own, so that taking
// answers never waits for the backend. A question that this hub alone answers
// takes neither way: [Switchboard.AskHere] calls Env.Perform itself.
//
// All that waits ends with its context, with [Env.Closing], or when the hub
// that is waited for is gone. A hub that was never heard of is waited for as
// long as it may have started a moment ago, if the backend cannot tell whether
// the question has reached it.
package questions
