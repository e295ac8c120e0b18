// Package redispubsub is what the adapters for classic and sharded Redis
// Pub/Sub have in common, which is nearly everything.
//
// Each channel has a home: the primary that owns its hash slot (without a
// cluster, the one server there is). For each home there is a link: a
// connection that carries all subscriptions to that node, whatever their slots,
// and a goroutine that alone writes to it. What is published goes to the home
// as well, through a pipeline, on a connection of its own.
//
//	             hub
//	  Subscribe  │ ▲ Receive          Publish, Append, History
//	             ▼ │                        │
//	Engine ──── sub ◄───────┐               ▼
//	   │  (a channel: its   │            route ──► pipeline ──► node
//	   │  home, and whether │               │      (one for each node: commands
//	   │  it is confirmed)  │               │       gather and share batches)
//	   │         │ seat     │ message       ▼
//	   │         ▼          │            topology
//	   ├─────── link ──► session ──► node   (which node owns which slot;
//	   │    (one for each node;              asked when there is a reason)
//	   │     decides with package
//	   │     seats what to ask for)
//	   │
//	   └─────── inspector: do the connections of links and pipelines lead to
//	            the servers that their addresses lead to?
//
// # A subscription moves
//
// A sub moves to another link when its slot moves. The server says so in
// several ways: an unsolicited sunsubscribe; MOVED as the reply to SSUBSCRIBE,
// which names the new home and is followed at once; a publish that reached no
// subscriber although we are subscribed; or a connection that breaks and does
// not come back while the other nodes name another owner. Where nodes do not
// redirect, in a cluster with classic Pub/Sub, they are asked periodically: see
// mode.
//
// # Reading from replicas
//
// With Config.ReadFrom the channels of rooms may have their home at a replica
// of the owner of their slot. Such a link is one of its own, whatever else the
// engine has at that node: its key is the replica with its primary. Publishing,
// histories and all other channels stay at the owner.
//
// A replica gets what is published over the cluster bus, which silently loses
// messages when a connection breaks, and the reply to a publish does not count
// its subscribers. So the session of such a link has a fed, which decides with
// package feed whether anything may have been lost, and ends the session if so:
// its subscriptions are interrupted then, and the link proves anew that the
// replica is fed before they are confirmed. If it cannot, readers avoids the
// replica for a while, and the subs move to another node of the shard.
//
// # Which server is at the other end
//
// Two connections to one address can end at two servers, one of which has
// become a replica or was replaced. So a server is asked for its identity (its
// role and its run_id) on the connection that is in use, and a connection that
// leads to the wrong server is closed and made again. That happens before a
// link subscribes, after each subscription, and for links and pipelines every
// probe interval and when there is a suspicion.
//
// # Files
//
//	engine.go     an Engine: the methods of an adapter
//	open.go       an Opened: an Engine that makes its own client; conns.go
//	mode.go       what differs: classic or sharded, one server or a cluster
//
//	sub.go        a channel that is wanted, and what the receiver is told of it
//	link.go       a connection to a node that is made again when it breaks
//	session.go    one connection of a link; dedicate.go gets it from the client
//	seats/        what a link asks for, as a machine without I/O
//	reconcile.go  sends what seats decides, and acts on the replies
//	probe.go      whether messages still arrive on an idle link
//
//	readfrom.go   which node of a shard rooms are read from
//	fed.go        whether a replica still gets everything
//	feed/         decides that, as a machine without I/O
//
//	table.go      who owns the slots; poll.go makes one table of many
//	topology.go   finds homes, when there is a reason to look for them
//	survey.go     asks the nodes; nodes.go has a pipeline for each
//	slots.go      reads CLUSTER SLOTS
//
//	info.go       what a server says of itself; identity.go asks it
//	inspect.go    the servers at the ends of connections; roles.go asks for the role
//
//	publish.go    a frame that a caller waits for; async.go: without waiting
//	route.go      which node gets a command
//	resend.go     frames that reached no subscriber, although there should be one
//	pipeline.go   the commands to one node; limits.go: how long they may be
//	bytes.go      strings and bytes that share memory
//
//	history.go    histories; library.go and history.lua: what runs on servers
//	keeper.go     how a node keeps histories; bond.go: scripts that may not ask
//	replies.go    reads the replies of the functions
//	errors.go     what errors mean for the hub; errortext.go: texts of errors
//	refusals.go   remembers refused histories, for Health
//	check.go      what works on the servers; report.go prints it
//
// # Locks
//
// The types of this package are used from the connection's reader goroutine
// (hooks), the links' goroutines, and callers. Locks are taken in this order:
//
//	sub.placing       one place or drop of a sub at a time
//	sub.mu            held while the receiver is called for its channel
//	topology.mu, link.mu, roles.mu, readers.mu, fed.mu, pipeline.mu, inspector.mu
//
//	Engine.mu, then link.mu
//
//	Opened.mu, conns.mu, limits.mu   no other lock is taken under these
//
// Locks of one line are never held together. A goroutine that holds Engine.mu,
// or one of the locks below sub.mu, waits for neither sub.mu nor sub.placing.
// So a receiver that stands still holds up its own connection and nothing else;
// [sub.state] needs no lock. The receiver is called under sub.mu, which is how
// calls for one channel never overlap; it does not call the adapter back. The
// Logger is called by the goroutine of a journal (see package journal), under
// no lock.
package redispubsub
