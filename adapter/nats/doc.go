// Package nats joins hubs through NATS: a server, a cluster, or servers that
// are embedded in the processes themselves (see examples/mesh).
//
//	a, err := nats.New("nats://10.0.0.1:4222", nil)
//	...
//	hub, err := fanout.New(a, nil)
//
// # Partitions
//
// Rooms come and go, and a NATS server has to tell each subject that appears
// or disappears to all others. So rooms have no subjects: a room's name is
// hashed to one of a fixed number of partitions ([Options.Partitions]), each
// of which is a subject, and the name travels in front of each frame. A hub
// subscribes to the partitions of its rooms and drops what is for rooms that it
// does not have; it stays subscribed for a while after the last room has left
// ([Options.Linger]). All hubs need the same Prefix and Partitions.
//
// # What may be lost, and how it is noticed
//
// NATS delivers at most once, and does not say when it has dropped something:
// a client that reads too slowly, two servers that have lost each other, and a
// subscription that is not known at another server yet all lose messages in
// silence. So each adapter numbers its frames in each partition, and publishes
// its latest number every second. An adapter that misses a frame reports an
// interruption in all rooms of that partition: at once if a later frame comes,
// after about a second if none does, and after 6 seconds if the publisher has
// died meanwhile.
//
// When a connection breaks, which the client notices within 4 to 6 seconds of
// silence, all its rooms are interrupted until the server, and the other
// hubs, have answered over the new one.
//
// Publish returns when the server that the hub is connected to has the frame.
//
// # Order
//
// The frames of each publisher keep their order. Two hubs may see those of
// different publishers interleaved differently: NATS has no order among
// connections, on one server no more than in a cluster. Rooms with a history
// have one order for all; a room that needs it can keep a history of one
// message. NATS does not count receivers either, so Publish returns -1.
//
// # Histories
//
// Rooms with a history (fanout.RoomOptions.Retain) need a server with
// JetStream, of version 2.11 or later. Each partition that has such rooms gets
// a stream, named by the prefix and the number of the partition: FANOUT_17. The
// stream keeps a frame and then publishes it to the partition by itself, so
// that what is seen live is what is kept, in one order. Where there is no
// JetStream, publishing to such a room is an error that wraps
// adapter.ErrRefused and says so.
//
// A frame claims the position after the last one of its room, and the stream
// takes it only if nobody else was faster; then the hub tries again. So hubs
// that publish to the same room at the same time cost each other round trips:
// there is no such cost for different rooms.
//
// In a cluster a stream has three replicas, and acknowledged frames survive
// the loss of one. A stream with one replica is as safe as the disk of its
// server: JetStream acknowledges before it has synced. So with one server,
// each restart of that server begins a new epoch, which is not Whole, and a
// stream that was deleted, or that is behind what this hub has seen of it,
// does so too.
//
// History returns nothing that is older than a room's Retention. A publish to
// the room removes it. If nothing is published, the rest of the room, and the
// note of where its history was, expire one day after Retention.Age.
//
// # Messages
//
// A frame has to fit the server's max_payload, which is 1 MB by default, with
// some 1.5 KB for the name of its room: set max_payload to 8MB, or
// fanout.Options.MaxMessage to less than max_payload by 64 KB. What is too long
// is refused before it is sent.
//
// # Permissions
//
// A user needs the permissions to publish and to subscribe to
//
//	fanout.>
//	_INBOX.>
//
// and, for histories, to publish to $JS.API.>. What the server does not allow
// is an error that wraps adapter.ErrRefused. While it refuses the user as such,
// or cannot be reached, the adapter tries again; Health and the log say why.
package nats
