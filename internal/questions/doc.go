// Package questions lets a hub ask other hubs, and answer them. It drives
// packages ask and control, and keeps the questions that members have not
// answered.
//
//	Ask ─▶ asking ─── the question ──▶ Put ─▶ queue ─▶ answering ─▶ Env.Perform
//	          ▲                                            │
//	          └─ queue ◀─ Put ◀─────── pages of answers ───┘
//
// The adapter's reader only puts questions, answers and the notices that belong
// to them into the queue of a [Switchboard]. (Hellos of package wire, and
// announcements of presence, are handled where they arrive.) One goroutine,
// which ends when the queue is empty, takes them out, in order, and hands them
// to those that ask or answer. Ask runs on the goroutine of its caller; each
// question that is answered has a goroutine. Goroutines of their own send what
// there is to send, so that taking answers never waits for the backend. A
// question that only this hub answers goes through no queue:
// [Switchboard.AskHere] calls Env.Perform itself.
//
// Every wait ends with its context, with [Env.Closing], or when the hub that is
// waited for is gone. If the backend cannot tell whether a question has reached
// a hub, a hub that was never heard of is waited for only briefly: it may have
// started a moment ago.
package questions
