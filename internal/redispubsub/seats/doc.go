// Package seats decides what a connection asks its server for, so that the
// server has the subscriptions that are wanted. It has no lock, clock,
// goroutine, I/O or client: a link tells a [Table] what happened, and gets the
// commands to send and the subscribers to notify.
//
// A seat is a channel on a connection. It knows which subscriber wants the
// channel and what the server has; where the two differ the seat is dirty, and
// [Table.Next] makes commands for it.
//
//	Want, Release ──► ┌───────┐ ──► Next: commands to send
//	Renew             │ Table │
//	                  │ seats │ ◄── Replied: the reply to a command
//	subscriber of ◄── └───────┘ ◄── Confirmed, Ended: notices from the server
//	a channel                   ◄── Connected, Broke: the connection
//
// The states of a seat, in a connection's life:
//
//	       Next, wanted            Confirmed
//	None ───────────────► Asked ───────────────► On ──────┐
//	 ▲                    │   ▲                  │        │ Renew, or Want by
//	 │ Replied: an error  │   │ Next, wanted     │        │ another subscriber
//	 ├────────────────────┘   └───────────────── Again ◄──┘
//	 │                                           │
//	 ├──────────────── Ended, unsolicited ───────┤ (On, Again)
//	 │                                           │
//	 │ Replied                                   │ Next, not wanted
//	 └──────────────── Leaving ◄─────────────────┘ (Asked, On, Again)
//
// Broke leads from every state to None.
//
// Three things make this correct:
//
//   - One goroutine sends the commands and waits for the replies to one batch
//     before it calls Next again. So a leave never overtakes a join: a seat
//     that is wanted again while it is Leaving stays so until the reply, and is
//     asked for after that.
//   - The reply to a command that unsubscribes looks like the notice that a
//     server sends by itself when a slot moves away. The state tells them
//     apart: in Leaving it is the reply, in On and Again it is the notice.
//   - A subscriber that takes over a seat from another one gets a confirmation
//     of its own. What is under way from before must not pass for what it was
//     promised.
package seats
