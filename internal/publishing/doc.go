// Package publishing is how a hub publishes. It drives package outbox: for each
// channel that the hub publishes to there is a [Channel], with an outbox and its
// lock.
//
//	Publish, PublishAsync, Notify ─▶ Outbox.Begin
//	    │
//	    ├─ the turn is free: the message is a frame of its own ──────┐
//	    │                                                            ▼
//	    └─ somebody holds it: Outbox.Gather,                     number, and
//	       the message joins the next frame ──▶ Outbox.Next ───▶ send or start
//	                                                ▲                │
//	                                                │                ▼
//	       the publishers are told ◀─ tell ◀─ account ◀─ transmit, retry
//
// The caller that finds the turn free sends its frame itself if it waits
// anyway (send). All other frames go to an adapter that does not wait, or to a
// goroutine of the hub's (start). Whoever holds the turn passes it on when the
// frame has arrived or is given up: the frame that has gathered meanwhile goes
// next. The functions that need the turn say so.
//
// What bounds the waiting:
//
//   - a publisher's context, or [Env.Timeout] if that has no deadline. A
//     publisher that gives up takes its message along if the frame is not under
//     way; nobody gets the message then;
//   - a frame that nobody waits for on its own goroutine has [Env.Timeout], from
//     its first message of PublishAsync or from when it is numbered;
//   - a notice has the context of Notify alone.
//
// # What the hub provides
//
// A hub has one [Env], which all its channels share, and each channel has an
// [Owner]: a room, or for the inboxes of other hubs an [Inboxes]. A channel is
// used while it is held (see [Owner.Hold]); the owner forgets it when it has not
// been held for a while, and Forget then remembers its numbers, so that a later
// Channel of the name goes on with them.
//
// [Env.Alone] is a hub without a backend. Unless a room keeps a history, its
// messages are delivered in Publish, and make no frames.
package publishing
