// Package fanout carries what is said in a room to everyone in that room,
// however many processes the room spans.
//
// A [Hub] is one process's end of the fan-out. A [Member] is one connection: a
// viewer, a player, a task of the server. A [Room] is a name. Members join
// rooms; what is published to a room reaches its members on every hub. An
// [Adapter] joins the hubs: package sharded through the sharded Pub/Sub of a
// Redis Cluster, adapter/redis through classic Pub/Sub, adapter/nats through
// NATS, adapter/memory within a process. A hub without an adapter shares its
// rooms with no other hub.
//
//	hub, err := fanout.New(adapter, nil)
//	...
//	member, err := hub.Connect(nil)
//	defer member.Close()
//	err = hub.Room("lobby").Join(ctx, member)
//	...
//	err = hub.Room("lobby").Publish(ctx, []byte("hello"))
//	...
//	for {
//		msg, err := member.Receive(ctx)
//		...
//	}
//
// The transport (WebSocket, SSE, gRPC) is yours: examples/websocket shows one,
// examples/chat is a whole chat.
//
// # What it guarantees
//
// Each of these has a test of its name, TestGuarantee1… and so on.
//
//  1. Joined means joined. When Join returns, everything that is published to
//     the room after that, by any hub, reaches the member or is reported to it
//     as missed.
//  2. One order. All members of a room, on all hubs, see its messages in the
//     same order. A hub delivers its own messages as they come back from the
//     backend, not before. A message that arrives late after an interruption,
//     when other hubs may have delivered it earlier, is reported as missed.
//     (Package sharded names the one moment in which a Redis Cluster has two
//     orders. NATS keeps only the order of each publisher, except in rooms
//     with a history, which have one. Messages of [Selection.Local],
//     [Selection.Unkept] and [Options.LocalFallback] have a place of their own
//     on each hub. If a server loses a message that some members have received,
//     and its publisher sends it again, the other members receive it later in
//     the order.)
//  3. No silent loss. When a member misses messages, because it is slow, a
//     link broke, slots moved or a primary died, it gets a [*GapError] before
//     the next message of that room. For each member and room, the messages
//     received and those reported missed account for all that was published
//     since it joined. Where the number cannot be known yet the error says so;
//     [GapError] lists the cases in which it never can. (Messages of
//     [Selection.Volatile] that a member skips because it lags are not counted,
//     and neither are those of [Selection.Unkept] in a room with a history. Two
//     backends can lose a message of a room without a history unnoticed:
//     adapter/redis on a cluster, if its publisher never publishes there again,
//     and adapter/nats, if its publisher dies just after its first messages.
//     Their package docs describe the case.)
//  4. With history, no loss. In a room with retention ([RoomOptions]) a member
//     gets from the history what it missed because a link broke, a slot moved,
//     a server was replaced or, if Overflow is [Skip], the member fell out of
//     the window. A *GapError reports what the history cannot supply. Messages
//     that have been trimmed are reported with their number. Messages that a
//     server took and then lost are reported as Unknown, when another server
//     takes over or when they still arrive from the old one. Their number
//     follows when their publisher is heard again, except for a member that
//     resumes later, since no hub counted them for it. Messages of a history
//     that cannot be read ([ErrBrokenHistory], [ErrRefused]) are a gap as in a
//     room without a history.
//  5. Once. A message to several rooms reaches a member of several of them
//     once, however far it lags in one of them, and also if it resumes them one
//     after another. A publish that was retried after a broken link is not
//     delivered twice. ([Hub.In], [Room.Resume] and [Options.LocalFallback]
//     name the cases in which a copy may come. A client that connects again is
//     a new member.)
//  6. No member delays another. A slow member delays neither another member nor
//     the connection to the backend.
//  7. Nothing after Leave. A Receive that begins after Leave has returned
//     returns nothing more of the room, and after Close no message at all.
//     Calls of Leave and Join, however fast and from however many goroutines,
//     end in the state that was asked for last, and a room with members is
//     always subscribed.
//  8. Errors are returned. When Publish returns nil the backend has the
//     message. If the backend is down Publish says so within the deadline of
//     its context; with [Options.LocalFallback] the members of this hub get the
//     message anyway, and the error says that.
//  9. Close leaves nothing behind: no goroutine, no subscription, no connection
//     of the hub's. Package sharded documents one exception, a client whose
//     pool of connections is exhausted, and [Hub.Close] two others, an adapter
//     that fails to close and a Logger that does not return.
//
// It does not promise an order between rooms, delivery to members that have not
// joined the room, or durability: without retention a message lives in the
// memory of the processes that have members in its room, until all of them have
// read it or it leaves the window; with retention it lives in the backend, and
// is as durable as the backend.
//
// # Less formally
//
// A room is a log and a member is a cursor into it. A room appends each message
// once, and nothing is queued for a member: a member that is behind continues
// to read the log, and one that has read everything is woken by the next
// message. Memory is bounded by the room's [Window], whatever the number of
// members. Only direct messages have a log for each member. A room in which
// every member has read everything holds no messages (with a history it holds
// up to two windows, for members that resume). A member that falls out of the
// window learns how many messages it missed and continues, or is closed; see
// [Overflow].
//
// Each room can have its own history, window and overflow policy:
// [Options.Room].
//
// # History
//
// A room that [Options.Room] gives a [Retention] keeps its latest messages in
// the backend. Each has a [Position], which a client can keep and come back
// with, to any hub:
//
//	err = hub.Room("lobby").Resume(ctx, member, since) // what came after since, then live
//	messages, err := hub.Room("lobby").History(ctx, since, 50)
//
// After Resume nothing is missing between the history and what is published
// now, and nothing comes twice. The history is read a page at a time, as the
// member receives. Many members that resume at once, for example after a server
// was restarted, share readings, and messages that the hub still has are not
// read from the backend. If the retention no longer covers what the client
// missed, it gets a GapError first.
//
// The hub reads the history itself when something is missing. A message whose
// place the history does not have, because it was flushed or evicted meanwhile
// or because somebody has forged the message, is held back for two to three
// seconds, while the history is read again a few times. Then it is delivered
// after an Unknown GapError, without a position. In the minute after that, each
// such message costs the room one reading, with at most four such readings a
// second. Other messages and joins do not wait for it.
//
// The epoch of a position changes when another server takes over the history.
// If that server lacks messages, their offsets are used again, in the new
// epoch. So the position of a lost message is never taken for that of another
// message.
//
// A frame costs Redis 13 to 25 µs more in a room with a history than in one
// without. That doubles the cost of a message that is sent alone. Messages of
// many rooms that are sent together cost little without a history, and ten
// times as much with one. In a busy room it matters little, since many messages
// share a frame.
//
// # Under load
//
// Messages that are published while another of the same room is on its way to
// the backend are gathered and go together, as one frame. There is no timer: an
// idle room adds no delay, and a room in which 300 people talk at once needs a
// few commands and not 300.
//
// A loop that publishes many messages need not wait for each of them:
// [Room.PublishAsync] returns once the hub has accepted the message and calls
// back when the backend has it, at a fraction of the cost.
//
//	err = hub.Room("lobby").PublishAsync(ctx, data, func(err error) { ... })
//
// A [*GapError] is not final: the next Receive returns what came after the gap.
// A server may also drop the client on any error from Receive: the client
// connects again, and joins or resumes. [ErrClosed] and [ErrSlow] are final.
//
// A member has no room of its own: to reach one member use [Hub.To]. No room
// name has a special meaning. A user may have several connections, on any hubs:
// connect each of them with [MemberOptions.User], and [Hub.User] selects all of
// them.
//
// # Whom a message is for
//
//	hub.Room("lobby").Publish(ctx, data)
//	hub.In("lobby", "game:7").Except(member.ID()).Publish(ctx, data)
//	hub.To(memberID).Publish(ctx, data)        // wherever it is connected
//	hub.User("ann").Publish(ctx, data)         // all connections of a user
//	hub.Everyone().ExceptRooms("game:7").Publish(ctx, data)
//	hub.In("cursors").Volatile().Publish(ctx, data) // not to members that lag
//	hub.In("lobby").Local().Publish(ctx, data)      // on this hub only
//
// # Who is there, on all hubs
//
// Selections also count and list their members, move them to other rooms, close
// them, and ask them questions. Each call ends as soon as all hubs concerned
// have answered, and Ask as soon as every member has. If some have not when ctx
// ends, or after [Options.PublishTimeout] if ctx has no deadline,
// the call returns what the others said, and a [*PartialError] that names the
// silent hubs, or counts those whose IDs are not known.
//
//	n, err := hub.In("lobby").Count(ctx)
//	for m, err := range hub.In("lobby").Members(ctx) { ... } // in pages, however many
//	err = hub.User("ann").Join(ctx, "game:7")
//	err = hub.User("ann").Close(ctx, "logged out")   // a *ClosedError with the reason
//	for reply, err := range hub.In("game:7").Ask(ctx, []byte("ready?")) { ... }
//
// A member answers a question with [Member.Reply]. To let other hubs ask a task
// of the server, connect a member for the task and join it to a room.
//
// Hubs watch each other, so a question does not wait for a hub that is gone:
// [Hub.Hubs] says how soon that is known.
//
// # Who comes and goes
//
// Members of a room that [Options.Room] gives Presence receive a list of who is
// in it, on all hubs, and then what changes, among the room's messages:
//
//	msg, err := member.Receive(ctx)
//	if change, ok := msg.Presence(); ok {
//		if change.Reset { ... }                    // forget the list, Joined is a new one
//		for _, p := range change.Joined { ... }    // also Updated and Left
//	}
//
// All connections of a user are one person. Reloading a page causes no change
// if its member has a user ([RoomOptions.Grace]). Many people who come at once
// are a few changes, and when a hub dies all its people leave in one step.
// Nothing is stored, so nobody who has gone stays in a list. Hubs compare what
// they know by counts and digests, and ask again if they have missed something.
//
// # Stopping a server
//
// Stop a server in this order, and no message is lost that the backend
// acknowledged before the second step:
//
//  1. Stop accepting connections: call the http.Server's Shutdown in a
//     goroutine. It closes the listeners at once, and then waits for handlers,
//     which the next step ends.
//  2. [Hub.Drain]. Members receive what is in their rooms, and then a
//     [*ClosedError]; the code that serves a member's connection says goodbye
//     to its client. ClosedError.Draining is true, so the client should connect
//     again, to another process. It is false after [Selection.Close].
//  3. Wait for Shutdown, and for connections that were hijacked, such as those
//     of WebSockets, which Shutdown does not wait for.
//  4. [Hub.Close], which also finishes publishes that are under way.
//
// Give each step a context with a deadline. A member that nobody receives from
// delays Drain until its deadline, so make that shorter than the time for all
// steps together. The examples websocket and chat do this.
//
// # Other languages
//
// Any Redis client can publish to a room. WIRE.md says how, and specifies the
// frames that hubs send each other.
package fanout
