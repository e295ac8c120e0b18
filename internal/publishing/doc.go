// Package publishing is how a hub publishes. It drives package outbox: for each
// channel that the hub publishes to there is a [Channel], with an outbox and
// its lock.
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
//   - A publisher waits as long as its context, or [Env.Timeout] if the context
//     has no deadline. If it gives up before its frame is under way, it
//     withdraws the message: only [Env.LocalFallback] still delivers it, on
//     this hub.
//   - A frame that is sent in the background has [Env.Timeout], counted from
//     its first message of PublishAsync, or else from when it is numbered. That
//     holds for notices, too.
//   - A caller of Notify waits as long as its context.
//
// # What the hub provides
//
// A hub has one [Env], which all its channels share, and each channel has an
// [Owner]: a room, or one of the [Inboxes] of other hubs. A channel is
// used while it is held (see [Owner.Hold]); the owner forgets it when it has
// not been held for a while, and Forget then remembers its numbers, so that a
// later Channel of the name goes on with them.
//
// [Env.Alone] is a hub without a backend. Unless a room keeps a history, its
// messages are delivered in Publish, and make no frames.
package publishing
