// Package peers knows which hubs are there, and which format level they read,
// so that a hub writes a field only when the others can read it.
//
// A hub says hello on the channel of everyone: when it starts, asking the
// others to answer, and every half minute after that. An answer goes to the
// inbox of the hub that asked. When many hubs ask at the same time, as after a
// restart of all of them, one hello to everyone answers them all.
//
//	          Said: the backend took the hello     settleTime is over
//	┌────────┐             ┌───────────┐             ┌─────────┐
//	│ Silent │ ──────────▶ │ Listening │ ──────────▶ │ Settled │
//	└────────┘             └───────────┘             └─────────┘
//
//	hub starts ── hello, asks ──▶ everyone
//	           ◀── hello ──────── inbox, from each of the others, spread over
//	                              half a second
//
// A hub whose frames are heard, and that has not said hello, has the level of
// the oldest release. It may have ended too early to say hello, or only
// publish: two seconds after its first frame it no longer counts as there. A
// hub that is not heard for four periods is forgotten.
//
// What hubs say of themselves may be forged. Forged hellos can hold the level
// down for as long as they are sent. They cannot raise it above what the real
// hubs say, and the number of hubs that are remembered is bounded.
//
// A Table has no lock, clock, goroutine or I/O. Its owner's lock guards it.
package peers
