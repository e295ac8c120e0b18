// Package watch keeps a hub's list of the hubs that are there. A hub is the
// unit of failure: when one dies, everything on it is gone in one step.
//
// Each hub is watched by a few others. A hash of the IDs of hubs w and t ranks
// w as a watcher of t; the [Params.Watchers] hubs that rank highest for t probe
// it: they publish to its inbox. On a backend that counts receivers, the reply
// says whether anybody listens there. The probe also asks for an ack, and
// everything else that comes from the hub counts as one. What a hub sends for
// this does not grow with the number of hubs.
//
//	          a probe reached nobody, or             it stays like that for
//	          no ack for AckTimeout                  Absent, or Silent
//	┌───────┐ ─────────────────────▶ ┌───────────┐ ──────────▶ ┌──────┐
//	│ Alive │                        │ Suspected │             │ Gone │
//	└───────┘ ◀───────────────────── └───────────┘             └──────┘
//	    ▲      heard, or it says Hello                            │
//	    └─────────────────────────────────────────────────────────┘
//	              it says Hello with a higher incarnation
//
// A watcher that begins to suspect a hub tells all hubs. If the suspected hub
// hears that, it says Hello with a higher incarnation, and so does a hub that
// hears that it is taken for gone. All hubs believe a watcher that says that a
// hub is gone.
//
// Some things are no evidence against a hub. A probe that could not be
// published says nothing about its receiver. Silence says nothing while the
// watcher does not hear itself, which it finds out by probing its own inbox.
// And a watcher that did not run for a while, because its process was stopped,
// moves its deadlines by that time.
//
// With the default parameters a hub that was killed is gone on all others
// within 3.5 s plus the time that messages take, on a backend that counts, and
// within 6.5 s on one that does not. A hub that stands still for a second is
// not even suspected.
//
// If a Hello or the news of an end is lost, lists differ. Hubs notice that by a
// digest in probes and acks, and exchange their lists.
//
// The package has no lock, clock, goroutine or I/O. Its owner's lock guards a
// Watch; after each event the owner carries out the [Actions].
package watch
