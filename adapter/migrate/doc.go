// Package migrate takes the hubs of an application from one backend to another
// while people talk: from classic to sharded Pub/Sub, from one cluster to
// another, from Redis to NATS.
//
//	from, err := redis.Open(old, nil)
//	...
//	to, err := sharded.Open(new, nil)
//	...
//	a, err := migrate.New("to-sharded", from, to, nil)
//	...
//	hub, err := fanout.New(a, nil)
//
// Nothing is lost, nothing comes twice, and each room keeps its one order, if
// both backends keep that. docs/migrating.md has the steps of a deploy.
//
// # Two deploys
//
//	            hub 1    hub 2    hub 3
//	            old      old      old       all publish to the old backend
//	deploy 1    Both     old      old
//	            Both     Both     old
//	            Both     Both     Both      all publish to the old backend
//	            ─────────── flip ─────────
//	            Flipped  Flipped  Flipped   all publish to the new backend
//	deploy 2    new      Flipped  Flipped
//	            new      new      Flipped
//	            new      new      new       all publish to the new backend
//
// Hubs with this package listen to both backends from their start. A hub
// publishes to one backend at a time, and all hubs to the same one. So a hub of
// the old release, which knows only the old backend, misses nothing before the
// flip, and a hub that knows only the new one misses nothing after it.
//
// If hubs published to both backends, both would carry the whole traffic, and
// each room would have two orders. Different hubs would deliver different ones,
// because nothing in a frame says which of two publishers came first.
//
// # The flip
//
// Hubs tell each other through a channel of their own, fanout:m:{name}, that
// they listen to both. When all hubs have been doing so for [Options.Settle],
// and no other hub was heard at the old backend, or counted by it, one of them
// asks the others to stop publishing. When no publish is under way, it
// appends a commit to the history of that channel at the old backend, and all
// continue at the new one. Publish, Subscribe and History wait meanwhile, for
// some round trips.
//
// If a hub does not answer, or starts just then, an entry of another kind comes
// first, all continue at the old backend, and the hubs try again 10 s later.
// [Adapter.Status] says what they wait for. [Options.Hold] keeps them from
// flipping.
//
// Frames of the new backend are held, for each channel, until the hub has
// received everything that the old backend had: until a marker that a hub
// publishes at the old backend comes back, or the link to it breaks. That takes
// a round trip, once for each channel. After 5 s, or when 4,096 frames or 4 MiB
// are held, the hub delivers them without waiting any longer. Ten seconds after
// the flip each hub does the same for its channels that were quiet until then,
// 16 at a time.
//
// The first frame that may be a copy of what the old backend had (see below) is
// held likewise until the new one has said whether it is one: for 5 s, or 4,096
// frames or 4 MiB. After that it is delivered, and the hub reads the history.
//
// Interruptions are reported only if they are those of the backend that counts
// for the channel. The numbers of receivers are those of the backend that hubs
// publish to.
//
// # Histories
//
// The first hub that publishes to a room with a history after the flip, or
// reads it, copies the history. Rooms that have members at the flip and are
// quiet are copied ten seconds after it. The copies have the offsets that they
// had. Frames that the old backend no longer has are replaced by fillers, which
// are not shown. So positions that clients have from the old backend are good
// at every hub with this package: Resume has no gap. A hub that has only the
// new backend knows nothing of the old epochs: a client that comes to it with a
// position from before the flip gets all that is kept, and a gap of unknown
// size. Wait with the second deploy for as long as clients stay away and are to
// come back without a gap.
//
// The second deploy must not begin before [Adapter.Status] of all hubs says
// that they are [Settled]: until then histories are being copied. A hub that
// has made no progress for ten minutes reports [GaveUp], and from then on tries
// once a minute. What is left is copied also when somebody uses it. Of the
// rooms whose members leave before that, after the flip, a hub copies at most
// 10,000.
//
// If a room's history was not copied, a hub that has only the new backend
// begins a new one. If a part was copied, such a hub continues after that part.
// The rest of the old history is no longer copied. Members that have been in
// the room since before the flip, at a hub with this package, get a gap and
// then all of the new history. If the copy was under way, one old message may
// come again. If one of the backends no longer keeps messages by which the two
// histories can be compared, the gap is of unknown size, and after it comes what
// follows the member's position.
//
// Copies are as old as the flip: a message may stay for one Retention.Age
// longer than it would have. A room that no hub has used between the flip and
// the second deploy, and that had no members at the flip, loses its history.
// Two backends of one Redis Cluster have the same histories, and nothing is
// copied.
//
// If the new backend loses a copy, as a server does that restarts empty, the
// history begins anew there: members get one gap and continue, and hubs that
// know of the copy do not copy the old history again. A hub that does not know
// of it, and finds no mark either, copies the old history again, behind the new
// messages.
//
// The new backend must not have a history of the room from before. Where it has
// one that is older than the old backend's, Publish and Resume return an error
// that wraps [adapter.ErrBrokenHistory].
//
// # When one of the backends is down
//
//   - The new one, before the flip: nobody notices. The flip waits for it.
//   - The old one, before the flip: as without this package. A hub that has not
//     heard itself there for 6 s asks whether the others have flipped before it
//     publishes again.
//   - The old one, after the flip: rooms without a history continue to work,
//     and so do rooms that had members at the flip, ten seconds after it, and
//     rooms whose history was copied, or began after the flip: the new backend
//     remembers for 30 days what was copied. Any other room with a history
//     waits, and its errors say so. That holds for new rooms, too, because
//     nobody can tell whether they have a history to copy. A hub that starts
//     learns from the new backend that the hubs have flipped.
//   - The old one, within ten seconds of the flip: in a room without a history
//     that had no message since the flip, members are told that messages may be
//     missing, and the next message may come up to 2.5 s late.
//   - The new one, after the flip: as without this package.
//
// # What it needs
//
// The old backend must keep histories, even if no room has one: the hubs reach
// their agreement in a history. If there can be none, they stay in [Both]. The
// users of both backends need the rights that the adapters need, since the
// channel has the prefix of the others.
//
// There is no way back but a migration of its own, with another name, to a
// backend whose histories are empty.
//
// A hub of the old release that is cut off from the old backend for all of
// Settle, and is back after the flip, is taken for gone. It receives nothing
// that is published after the flip.
package migrate
