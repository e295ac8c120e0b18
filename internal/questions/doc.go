// Package questions has a hub ask others, and answer them. It drives packages
// ask and control, and keeps the questions to members that are not answered.
//
//	Ask ─▶ asking ─── the question ──▶ Put ─▶ queue ─▶ answering ─▶ Env.Perform
//	          ▲                                            │
//	          └─ queue ◀─ Put ◀─────── pages of answers ───┘
//
// The adapter's reader only puts questions, answers and what belongs to them into
// the queue of a [Switchboard]: hellos, and announcements of presence, are dealt
// with where they come. One
// goroutine, which ends when the queue is empty, takes them out, in order, and
// hands them to those that ask or answer. Ask runs on the goroutine of its
// caller; each question that is answered has a goroutine. What is sent is sent
// by goroutines of its own, so that nobody who takes answers waits for the
// backend.
//
// All that waits ends with its context, with [Env.Closing], or when the hub
// that is waited for is gone.
package questions
