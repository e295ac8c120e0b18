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
//	   └── roles (is a node a primary just now?)
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
// The types of this package are used from the connection's reader goroutine
// (hooks), the links' goroutines, and callers. Locks nest in the order
// Engine.mu, then sub.mu or link.mu (never both). The receiver is called under
// sub.mu, which is how calls for one channel never overlap; it calls nobody
// back.
package redispubsub
