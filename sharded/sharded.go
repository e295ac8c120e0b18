// Package sharded joins hubs through the sharded Pub/Sub of Redis 7 and later,
// or Valkey: in a Redis Cluster a message goes to the one primary that owns the
// room's slot, and not to every node.
//
//	a, err := sharded.Open(rueidis.ClientOption{InitAddress: []string{"10.0.0.1:6379"}}, nil)
//	...
//	hub, err := fanout.New(a, nil)
//
// Open makes a client that the adapter owns, and the adapter connects when it
// can. New uses a client of the caller's; set DisableCache in its options,
// since publishing and subscribing need no cache.
//
// For each primary on which rooms are subscribed there is one connection,
// however many rooms there are. It is made with the options of the client: TLS,
// users and passwords, RESP3. Publishing uses the connections of the client
// itself. A single server and Sentinel work as well as a cluster.
//
// # When the cluster changes
//
// When slots move, the server says so, and the adapter subscribes the rooms of
// a moved slot at the new owner at once. Other rooms are not touched. When a
// connection breaks the adapter connects again at once, then with growing,
// random pauses, and subscribes its rooms in batches. When a primary dies its
// rooms move to the replica that the other nodes name. Meanwhile Join waits and
// Publish tries again.
//
// While a slot moves, plain Pub/Sub loses messages: nobody can subscribe at the
// new owner before it owns the slot. Members of the rooms concerned get a
// fanout.GapError. In a room with a history (fanout.RoomOptions.Retain) they
// get those messages, only later.
//
// # When an address leads to another server
//
// A server that has become a replica continues to accept subscriptions and
// messages, but need not pass them on. The same happens when an address (the
// name of a service, a virtual address) leads to another server while
// connections to the old one remain. So the adapter asks servers for their role
// and run_id, on the connections that it uses: before it subscribes, with each
// subscription, every ProbeInterval, and when there is a suspicion. At every
// third interval it also makes a new connection, to find out where the address
// leads. It closes connections that lead to the wrong server and makes them
// again.
//
// To publish, the adapter uses the client's connections. It closes a wrong one
// with QUIT: other commands that the program has just sent on it fail. While an
// address leads to a replica, publishing there fails with adapter.ErrUnsent,
// and Health reports it. If a message reached no subscriber, and its node turns
// out to be a replica, the adapter sends the message again.
//
// When a replica takes over from a primary that is alive (a manual failover, or
// a primary that was paused or cut off and comes back), both may have
// subscribers for a moment. Every message is still counted, but in a room
// without a history members of different hubs may see the messages of that
// moment in different orders.
//
// # When a subscription breaks silently
//
// If this hub is subscribed to a room, and a message reached no subscriber, the
// subscription must be broken: the adapter subscribes again, and sends the
// message again. On an idle connection it sends a message to itself every
// ProbeInterval, to find out whether messages still arrive.
//
// # Reading from replicas
//
// Each primary sends a message once to each hub that is subscribed to the room.
// Where one room is so busy, on so many hubs, that this is more than one server
// can send, Options.ReadFrom spreads the hubs over the replicas of each shard:
//
//	publishes ──► primary ──► some of the hubs (AllNodes), or none (Replicas)
//	                 │
//	                 └── cluster bus ──► replica 1 ──► some of the hubs
//	                                 ──► replica 2 ──► some of the hubs
//
// The primary sends a message to each of its replicas anyway, subscribers or
// not. So with n nodes in a shard, a node sends to one n-th of the hubs. A hub
// reads all rooms of a shard at one node, on one connection, which is chosen by
// a hash of the hub and the node. Its own channels (direct messages, users,
// everyone) stay at the primaries, and so do publishing and histories. Replicas
// get messages in the order of their primary, so there is one order.
//
// What it costs:
//
//   - A message takes one hop more, and a replica that has stopped delays its
//     hubs until they leave it.
//   - Receivers are no longer counted: a primary does not know of subscribers
//     at its replicas. Questions and commands to rooms (Selection.Count, Ask,
//     Join and so on) are complete when all hubs that are there have said
//     whether they listen, and not as soon as all that got them have answered.
//     Hubs that have started within the last second may be left out.
//   - A message that reached nobody is not noticed by its publisher. The hubs
//     that read notice instead, as follows.
//   - One connection more from each hub to each shard, and a message of a few
//     bytes each ProbeInterval.
//
// A message can be lost between a primary and its replica, when their
// connection breaks, and nobody is told. So a hub makes sure that a replica is
// fed before it confirms a subscription there, and then in each ProbeInterval
// and with each subscription: the replica says who its primary is and since
// when the primary's connection has existed (ROLE, CLUSTER LINKS), and numbered
// messages that the hub publishes at the primary have to arrive. If the
// primary's connection is another one than before, or a number is missing,
// messages may have been lost, and the hub interrupts its rooms there: rooms
// with a history fill what is missing, others report a gap. That takes at most
// two ProbeIntervals. Missing messages that are followed by others of the same
// publisher are noticed at once, by their numbers. If nothing arrives for
// longer than ProbeTimeout, the hub moves its rooms to another replica, or to
// the primary if there is none.
//
// When a replica becomes a primary, or gets another primary, the rooms move in
// the same way. A replica that did not work is tried again after a second, and
// after at most a minute; every fifteenth ProbeInterval hubs ask which replicas
// there are, and rooms return to those that have shown that they work. That
// interrupts them once more.
//
// The servers then count only some of the receivers, and hubs without the
// option would take these counts for complete. So on a cluster that is in use,
// first deploy all hubs with PrimariesUncounted, and then with
// Replicas or AllNodes.
//
// Reading from replicas needs a cluster and RESP3, and the rights in the line
// "replicas" below. Where a replica lacks something, rooms are read from the
// primary, and the log says why, at most once a minute.
//
// # What it needs
//
// Redis 7.0 or later, or Valkey. If a server does not know a command that is
// needed, or the user may not call it, errors and Health say which one.
//
// A user that is limited by ACLs should have these rights, depending on what it
// does:
//
//	always:   &fanout:* +ssubscribe +sunsubscribe +spublish +role +info +hello +ping
//	cluster:  ~fanout:* +cluster|slots +cluster|shards +exists
//	replicas: +role +cluster|links
//	history:  ~fanout:* +fcall +function|load +info +time +cluster|myid
//	history:  +hmget +hget +hset +hlen +hgetall +hdel +del +pexpire
//	history:  +xadd +xrange +xrevrange +xtrim
//	scripts:  +evalsha +script|load
//	limits:   +config|get
//	named:    +client|setinfo
//
// Without +role, the role is read from INFO. Without +info, a server that was
// replaced by another primary behind its address is noticed only when
// connections break. Without both, a server that has become a replica is
// noticed only then too; the log says so.
//
// The rights for scripts are needed where functions are refused, in place of
// +fcall and +function|load.
//
// The rights in the last two lines are optional; without them the attempts
// appear in the server's ACL LOG. With config|get the adapter learns how long a
// message may be, see fanout.Options.MaxMessage. With client|setinfo the client
// tells its name; Redis 7.0 does not know that right, and refuses an ACL
// SETUSER that has it.
//
// # Histories
//
// A history is kept by functions, which the adapter loads into servers that
// lack them. Where a server refuses functions, or does not let them call INFO,
// the adapter runs the same code as scripts (EVALSHA), which takes two to three
// times the server's time. Where scripts may not call INFO either, it asks for
// the replication ID itself, on a connection of its own to each node. A role
// that changes is then noticed within a ProbeInterval.
//
// Scripts forget what functions remember: since when a server is a primary. So
// when a slot moves to a server that was a replica before, scripts do not vouch
// for the histories in it, and members that resume are told of a gap of unknown
// size, though nothing was lost.
//
// Where INFO tells neither a replication ID nor a run_id, nobody can know
// whether a server has lost something: each new connection to it counts as a
// possible loss. Rooms begin a new epoch then, and members that resume are told
// of a gap of unknown size; the log and, for a minute, Health say so.
//
// What a node can do is found out when the first room with a history needs it,
// and logged once. If it can do none of this, the errors of Join and Publish,
// and Health, say which commands are missing.
//
// The keys of a history are fanout:h:{room}, a stream, and fanout:h:{room}:at,
// a note of the current position. While a slot moves there may be
// fanout:h:{room}:moved, for at most ten minutes. A memory policy that evicts
// keys with an expiry may evict them.
//
// # Errors
//
// An error is final (adapter.ErrRefused) only if waiting does not cure it: a
// missing right, a command that the server does not know or does not accept in
// this form, a message that is too long, a client that is closed. Even then, a
// subscription that was confirmed once is tried again. All other errors are
// tried again until the context ends: a server that is loading, busy, down, or
// out of memory or disk space, that has too few replicas or too many clients,
// or that refuses the password to a new connection. The error at the end has
// the server's last error.
//
// Each connection for subscriptions comes from the client's pool of dedicated
// connections (BlockingPoolSize of its options, 1,024 for each node by
// default). If the pool is used up Join waits, and its error and Health say so.
package sharded

import (
	"context"
	"log/slog"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/redispubsub"
	"github.com/redis/rueidis"
)

// Options configure an Adapter. Nil is the zero value, which has the defaults.
type Options struct {
	// ProbeInterval is how often an idle connection is probed, and how often
	// servers are asked for their role and run_id. Default 2 s; negative is
	// never.
	ProbeInterval time.Duration

	// ProbeTimeout is how long a server may take to answer before its
	// connection is given up. Default 5 s.
	ProbeTimeout time.Duration

	// ReadFrom says at which nodes of a cluster rooms are subscribed. The default
	// is Primaries. See "Reading from replicas" in the package documentation.
	ReadFrom ReadFrom

	// Logger gets warnings about connections that break or cannot be made.
	// Default slog.Default().
	Logger *slog.Logger
}

// ReadFrom says at which nodes of a cluster rooms are subscribed. Without a
// cluster it has no effect.
type ReadFrom = redispubsub.ReadFrom

const (
	// Primaries subscribes rooms at the primary that owns their slot.
	Primaries = redispubsub.ReadPrimaries

	// PrimariesUncounted is Primaries for a hub on a cluster in which other hubs
	// read from replicas, or are about to: it does not rely on counts of
	// receivers, which lack the hubs at replicas.
	PrimariesUncounted = redispubsub.ReadPrimariesUncounted

	// Replicas subscribes rooms at replicas, and at the primary only if none of
	// its replicas can be used. With one replica for each primary that relieves
	// the primary, but a single node still sends everything.
	Replicas = redispubsub.ReadReplicas

	// AllNodes subscribes rooms at the primary and its replicas alike.
	AllNodes = redispubsub.ReadAllNodes
)

// An Adapter is an [adapter.Adapter], and has the optional capabilities
// [adapter.AsyncPublisher], [adapter.Historian] and [adapter.HealthChecker].
// Make one for each hub.
type Adapter struct{ backend }

// A backend has the methods of an Adapter.
type backend = redispubsub.Backend

var (
	_ adapter.Adapter        = (*Adapter)(nil)
	_ adapter.AsyncPublisher = (*Adapter)(nil)
	_ adapter.Historian      = (*Adapter)(nil)
	_ adapter.HealthChecker  = (*Adapter)(nil)
)

// New returns an adapter that uses a client of the caller's. The caller closes
// the client after the hub. New sends nothing to Redis. Nil options are the
// defaults. New fails if the client is nil or an option is out of range
// ([adapter.ErrInvalidOption]).
func New(client rueidis.Client, o *Options) (*Adapter, error) {
	if o == nil {
		o = new(Options)
	}
	e, err := redispubsub.New(client, o.config())
	if err != nil {
		return nil, err
	}
	return &Adapter{e}, nil
}

// Open returns an adapter that makes a client from option, with DisableCache
// set, and closes it in Close. Nil options are the defaults.
//
// Open does not connect; the adapter does so when a hub attaches it. While the
// servers cannot be reached, refuse the password, or form a cluster without
// slots, the adapter tries again, with pauses of up to 500 ms, until it
// succeeds or is closed. Meanwhile Join and Publish wait. Their errors, Health
// and the log (at most once a minute) say what is wrong. Open fails if the
// options cannot work, for example if InitAddress is empty
// ([adapter.ErrInvalidOption]).
func Open(option rueidis.ClientOption, o *Options) (*Adapter, error) {
	if o == nil {
		o = new(Options)
	}
	e, err := redispubsub.Open(option, o.config())
	if err != nil {
		return nil, err
	}
	return &Adapter{e}, nil
}

func (o *Options) config() redispubsub.Config {
	return redispubsub.Config{
		Name:          "sharded",
		Sharded:       true,
		ReadFrom:      o.ReadFrom,
		ProbeInterval: o.ProbeInterval,
		ProbeTimeout:  o.ProbeTimeout,
		Logger:        o.Logger,
	}
}

// A Report says what works on the servers that a client reaches. Its String is
// a text to print; OK reports whether rooms and histories work.
type Report = redispubsub.Report

// Check asks the primaries that a client knows which of the commands that the
// adapter needs work there, and what else matters: the eviction policy, the
// output limit of subscribers, whether counts of receivers can be trusted, and
// how histories would be kept. It subscribes to a channel and publishes to it,
// tries commands on keys that do not exist, and may load the functions or
// scripts of histories. Each node has 5 s to answer. Check fails if no primary
// answers. Command cmd/fanout-check prints the report.
func Check(ctx context.Context, client rueidis.Client) (*Report, error) {
	return redispubsub.Check(ctx, client, true)
}

// Publish implements adapter.Adapter. It returns the number of hubs that are
// subscribed to the channel, or -1 for a room if Options.ReadFrom is not
// Primaries.
func (a *Adapter) Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	return a.backend.Publish(ctx, channel, frame)
}

// Close implements adapter.Adapter. It closes the client if Open made the
// adapter. It does not wait for connections from a client whose pool is used up
// (BlockingPoolSize): then one goroutine for each node remains until the client
// has a connection for it or is closed.
func (a *Adapter) Close(ctx context.Context) error { return a.backend.Close(ctx) }
