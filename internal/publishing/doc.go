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
// A caller that finds the turn free and waits for the outcome sends its frame
// itself (send). All other frames go to an adapter that does not wait, or to a
// goroutine of the hub (start). The holder of the turn passes it on when its
// frame has arrived or was given up: the frame that has gathered meanwhile is
// sent next. The functions that need the turn say so.
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
// [Owner]: a room, or one of the [Inboxes] of other hubs. A channel is held
// while it is used (see [Owner.Hold]). The owner forgets it when it has not
// been held for a while. Forget then stores its numbers, so that a later
// Channel of the same name continues them.
//
// With [Env.Alone] the hub has no backend. Then Publish delivers messages
// itself, without frames, except in rooms that keep a history.
package publishing
