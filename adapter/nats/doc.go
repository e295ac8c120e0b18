// Package nats joins hubs through NATS: a server, a cluster, or servers that
// are embedded in the processes themselves (see examples/mesh).
//
//	a, err := nats.New("nats://10.0.0.1:4222", nil)
//	...
//	hub, err := fanout.New(a, nil)
//
// # Partitions
//
// Rooms come and go, and a NATS server has to tell all other servers of each
// subject that appears or disappears. So rooms have no subjects: a room's name
// is hashed to one of a fixed number of partitions ([Options.Partitions]), each
// of which is a subject, and the name travels in front of each frame. A hub
// subscribes to the partitions of its rooms and drops what is for rooms that it
// does not have; it stays subscribed for a while after the last room has left
// ([Options.Linger]). All hubs need the same Prefix and Partitions.
//
// # What may be lost, and how it is noticed
//
// NATS delivers at most once, and does not say when it drops messages. It drops
// some when a client reads too slowly, when two servers lose their connection,
// and while a subscription is not yet known at another server. So each adapter
// numbers its frames in each partition, and publishes its latest number every
// second. An adapter that misses a frame reports an interruption in all rooms
// of that partition: at once if a later frame comes, after about a second if
// none does, and after 6 seconds if the publisher has died meanwhile. One loss
// may go unnoticed: a hub publishes in a partition for the first time, NATS
// drops all that, and the hub dies before it has said how far it came.
//
// When a connection breaks, which the client notices after 4 to 6 seconds of
// silence, all its rooms are interrupted until the server and the other hubs
// have answered over a new connection.
//
// Publish returns when the server that the hub is connected to has the frame. A
// connection on which a write fails is closed, since the client would drop what
// it could not write, and go on.
//
// # Order
//
// The frames of each publisher keep their order. Two hubs may see those of
// different publishers interleaved differently: NATS has no order among
// connections, in a cluster or on one server. Rooms with a history have one
// order for all hubs, so a room that needs one order can keep a history of one
// message. NATS does not count receivers either, so Publish returns -1.
//
// # Histories
//
// Rooms with a history (fanout.RoomOptions.Retain) need a server with
// JetStream, of version 2.11 or later. Each partition that has such rooms gets
// a stream, named by the prefix and the number of the partition: FANOUT_17. The
// stream keeps a frame and then publishes it to the partition, so that hubs
// receive live what is kept, in the same order. Where there is no JetStream,
// publishing to such a room is an error that wraps adapter.ErrRefused and says
// so.
//
// A frame names the position after the last one of its room, and the stream
// takes it only if no other hub was faster. If one was, the hub tries again. So
// hubs that publish to the same room at the same time cost each other round
// trips; hubs that publish to different rooms do not. A hub that was slower
// three times in a row claims the room: the others wait until it has published,
// for five times as long as the stream takes to answer it, and half a second at
// most. So hubs take turns, also those that are farther from the stream's
// leader than others, if they are answered within 100 ms.
//
// In a cluster a stream has three replicas, and acknowledged frames survive
// the loss of one. A stream with one replica is as safe as the disk of its
// server: JetStream acknowledges before it has synced. So with one server, each
// restart of that server begins a new epoch, which is not Whole. A new epoch
// also begins if a stream was deleted, or if it is behind what this hub has
// seen of it.
//
// History returns nothing that is older than a room's Retention. A publish to
// the room removes it. A server that is cut off from the others answers from
// what it has. If that ends before the position that is asked for, History asks
// again for up to 5 seconds. If nothing is published, the rest of the room, and
// the note of where its history was, expire one day after Retention.Age.
//
// # Messages
//
// A frame has to fit the server's max_payload, which is 1 MB by default, with
// some 1.5 KB for the name of its room: set max_payload to 8MB, or set
// fanout.Options.MaxMessage to 64 KB less than max_payload. A message that is
// too long is refused before it is sent.
//
// # Permissions
//
// A user needs the permissions to publish and to subscribe to
//
//	fanout.>
//	_INBOX.>
//
// and, for histories, to publish to $JS.API.>. If the server does not permit
// something, the error wraps adapter.ErrRefused. While the server refuses the
// login or cannot be reached, the adapter tries again; Health and the log say
// why.
package nats
