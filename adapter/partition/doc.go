// Package partition joins several backends into one adapter, such as three
// Redis servers that know nothing of each other. Each room belongs to one of
// them.
//
//	var parts []partition.Partition
//	for _, addr := range []string{"10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.3:6379"} {
//		a, err := redis.Open(rueidis.ClientOption{InitAddress: []string{addr}}, nil)
//		...
//		parts = append(parts, partition.Partition{Name: addr, Adapter: a})
//	}
//	a, err := partition.New(parts, nil)
//	...
//	hub, err := fanout.New(a, nil)
//
// All hubs need the same names for the same backends, in any order. The names
// alone decide which rooms a partition has, so keep a name when the backend
// moves to another address.
//
// # Which partition has what
//
// A room and its history are on the partition that [Pick] names: the one with
// the highest hash of its name and the room's, which is rendezvous hashing.
// Adding a fifth partition moves a fifth of the rooms, all of them to it.
// Removing one moves only its rooms.
//
// A partition that is down takes only its rooms with it. Their Publish and Join
// wait or fail, their members are told of gaps, and Health names the partition.
//
// Three kinds of channels must not depend on one partition: the hub's inbox,
// by which direct messages come, the channel to everyone, and those of users.
// Each of these is on several partitions, two by default ([Options.Copies]). A
// publisher sends a copy to each, and receivers drop the second by its number.
// With two copies, no such message is lost while one partition is down, and a
// direct message costs two publishes. When a link breaks or comes back while
// the other copy still arrives, the channel is reported as interrupted and
// restored at once: a copy may have been the only one.
//
// A program that is no hub and publishes to the channel to everyone should
// publish to one partition only. Its messages are delivered as they are.
//
// Frames of different hubs to everyone or to a user may arrive in different
// orders at different hubs. The order in rooms is that of the backend.
//
// # Adding and removing partitions
//
// Call [Adapter.Change] on all hubs, in any order, with the new partitions.
// Adapters tell each other how far they are, on a channel of their own
// (fanout:p:{partitions}, see [Options.Prefix]) on every partition. No adapter
// takes the next step before all have taken the one before:
//
//	opening    subscribes the rooms that move at their new home as well
//	ready      has them all. Publishes still go to the old home
//	drained    holds publishes to rooms that move, and none is under way
//	flushed    has received what the others published before they were drained
//	switched   publishes to the new home, and still listens at the old one
//	steady     has left the old home
//
// So nothing is lost, whatever the order in which hubs learn of the change:
// nothing changes until the last one is ready, and Change waits for that. From
// drained to switched publishes to the rooms that move are held, for a few
// round trips. Rooms that stay are not touched. If Change ends with its
// context, the change continues when the missing hubs come; to give it up while
// no hub is drained, call Change with the old partitions.
//
// An adapter knows that it has heard from all others because the backend says
// how many have received its question. Where the backend cannot say it
// ([adapter.Adapter.Publish] returns -1), an adapter asks for the time of
// [Options.Patience] before the first step, and a hub that does not answer in
// that time counts as gone. A partition that cannot be reached for that long
// counts as gone, too, so a dead one can be removed.
//
// When a machine dies, the backend may count its hub for some minutes more. If
// that hub was never heard, a hub that starts waits for its answer for
// [Options.Patience], once, and so does each change. If it was heard and has
// not left, Change waits for as long as the backend counts it, and Health says
// how many answers are missing.
//
// A hub that starts asks the others which partitions are current, and uses
// those. If it was not given one of them, rooms there are refused with
// [adapter.ErrUnsent] or wait, and Health names the partition, until Change
// brings it. So a rolling deploy may start new processes with the new set: they
// use the old one until the last old process has gone or has called Change. For
// a partition that is to go, give them [Partition.Leaving].
//
// A hub that no other can reach, because its subscriptions at all partitions
// are interrupted, holds its publishes: the others may take it for gone. It
// asks them as soon as it can.
//
// A hub that was cut off from all others, or that they took for gone, may find
// that they have switched without it. It then follows, and reports its rooms
// that have moved as interrupted and restored: their members get a gap. The gap
// comes later than the contract of adapters asks for, because the hub did not
// know of the change. The same happens to a hub that has lost its links to some
// partitions, and not to others, for longer than Patience, if the other hubs
// change the set meanwhile.
//
// The current set is in the memory of hubs only. When all of them stop, start
// them with the partitions that they had, and change these afterwards.
//
// # Histories that move
//
// The first adapter that publishes to a room that has moved, or reads its
// history, copies what is kept to the new home; rooms in use are copied at once
// when a hub has switched. Offsets stay what they were, so a position from
// before the move is good after it: Resume gets every message, and no gap. The
// copies keep their epochs. Messages that are published after the move have a
// new epoch, which is larger than the old ones even if the servers' clocks
// differ. In [adapter.Page.Before] it follows the old epochs without a hole.
//
// A room that nobody uses is not copied until somebody uses it. So a partition
// that goes has to stay readable for as long as rooms keep messages: give it to
// Change with [Partition.Leaving], and leave it out a Retention.Age later. If
// it is left out at once, only rooms that hubs have used since they started are
// copied; the history of others begins anew, and a Resume says that messages
// are missing. If the old home cannot be read, a room waits for it, unless that
// partition has been left out of the set: then its history begins anew after
// Patience.
//
// Each room that has moved has a small record at its new home, under a channel
// name of its own (fanout:r:m:{room}), which lives at least twice as long as
// the messages, and one at its old home that says where it has gone: the copy
// that stays there is not taken for the history later. If what the new home had
// is lost when the room returns, the history goes on after that copy, in a new
// epoch. One hub at a time copies a room. The hub that does so is noted
// under fanout:r:c:{room}, for an hour. Another hub replaces it if it does not
// finish within ten seconds; until then publishes to the room wait or fail.
//
// A server that loses its data, for example by FLUSHALL, loses the record as
// well. The history then begins anew, with positions after all earlier ones.
// There is one limit: a hub that uses the room for the first time after that
// looks for its history at the old home. If the old home still has it, and its
// clock is ahead, hubs disagree about positions until they have all looked the
// room up again, which they do within six hours.
//
// # Health
//
// Health returns an error that names each partition that is not healthy, each
// that is missing, and a change that waits for other hubs.
//
// # Load balancers
//
// Members of one room cost less when they are on few hubs. [Pick] is exported,
// and its algorithm is fixed, so that a load balancer can send a room's people
// to the same hub: examples/router does so, and docs/partition.md has a
// configuration of nginx.
package partition
