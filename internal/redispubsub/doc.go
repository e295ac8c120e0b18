// Package redispubsub is what the adapters for classic and sharded Redis
// Pub/Sub have in common, which is nearly everything.
//
// Each channel has a home: the primary that owns its hash slot (without a
// cluster, the one server there is). For each home there is a link: one
// connection that carries all subscriptions, whatever their slots, and one
// goroutine that is the only one to write to it. The link reconciles what is
// wanted with what the server has: because a single goroutine writes, and waits
// for the replies, a leave never overtakes a join, and a reply can be told from
// a notice of the server's own that looks the same.
//
//	Engine ── sub (a channel: its home, does it stand?)
//	   │         ▲
//	   ├── link ─┴─ seat (a channel on a connection: what the server has)
//	   ├── link …
//	   ├── topology (who owns which slot; asked when in doubt)
//	   │      └── pipeline (to each node: what is published shares batches)
//	   ├── roles (is a node a primary just now?)
//	   └── inspector (do connections lead to where their addresses lead?)
//
// A sub moves to another link when its slot does. The server says so in several
// ways: an unsolicited sunsubscribe, MOVED as the reply to SSUBSCRIBE (which
// names the new home, and is followed at once), a publish that reached nobody
// although we are subscribed, or a connection that breaks and does not come
// back while the other nodes name another owner.
//
// What an error means is decided in errors.go, for all. An Opened is an Engine with
// a client of its own, once there is one.
//
// An address is a name: two connections to it can end at two servers, one of
// which has become a replica or was replaced. So a server is asked who it is
// (its role and its run_id) on the connection that is in use, and a connection
// that leads to the wrong server is closed and made again. That happens before a
// link subscribes, after each subscription, and for links and pipelines every
// probe interval and when there is a suspicion.
//
// # Locks
//
// The types of this package are used from the connection's reader goroutine
// (hooks), the links' goroutines, and callers. Locks are taken in this order:
//
//	sub.placing       one place or drop of a sub at a time
//	sub.mu            held while the receiver is called for its channel
//	topology.mu, link.mu, roles.mu, pipeline.mu, inspector.mu
//
//	Engine.mu, then link.mu
//
// Locks of one line are never held together. Whoever holds Engine.mu, or one of
// those below sub.mu, waits for neither sub.mu nor sub.placing, so a receiver
// that stands still holds up its own connection and nothing else; [sub.state]
// needs no lock. The receiver is called under sub.mu, which is how calls for one
// channel never overlap; it calls nobody back. The Logger is called by the
// journal's goroutine, under no lock.
package redispubsub
