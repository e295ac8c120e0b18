// Package sharded joins hubs through the sharded Pub/Sub of Redis 7 and later,
// or Valkey: in a Redis Cluster a message goes to the one primary that owns the
// room's slot, and not to every node.
//
//	a, err := sharded.Open(rueidis.ClientOption{InitAddress: []string{"10.0.0.1:6379"}}, nil)
//	...
//	hub, err := fanout.New(a, nil)
//
// Open makes a client that the adapter owns, and connects when it can. New takes a
// client of yours; set DisableCache, since publishing and subscribing need no cache.
//
// There is one connection for each primary on which rooms are subscribed,
// whatever their number, made with the options of the client: TLS, users and
// passwords, RESP3. Publishing goes through the client itself. A single server
// and Sentinel work as well as a cluster.
//
// # When the cluster changes
//
// The adapter follows the slot. When slots move the server says so, and the
// rooms of a moved slot are subscribed at the new owner at once; the others are
// not touched. A broken connection is made again at once, then with growing,
// random pauses, and its rooms are subscribed in batches. When a primary dies
// its rooms move to the replica that the other nodes name. Meanwhile Join waits
// and Publish tries again.
//
// Plain Pub/Sub cannot avoid that messages are lost between the old home and
// the new: nobody can subscribe at the new owner before it owns the slot. The
// members of the rooms concerned are told, with a fanout.GapError. In a room
// with a history (fanout.RoomOptions.Retain) they get those messages, and notice
// nothing but the delay.
//
// A server that has become a replica goes on to take subscriptions and messages
// without a word, and need not pass them on; so does one whose address leads to
// another server by now (the name of a service, a virtual address). So a hub asks
// servers for their role and run_id, on the very connections that it uses: before
// it subscribes, with each subscription, every ProbeInterval, and when something
// is odd. It closes connections that lead to the wrong server and makes them
// again; a new connection is made at every third interval to see where the
// address leads. For publishing that is the client's own connection, which is
// closed with QUIT: other commands that the program has sent on it just then
// fail. While an address leads to a replica, publishing there fails with
// adapter.ErrUnsent, and Health says so. A publish that nobody received is sent
// again if its node turns out to be a replica.
// Still, while the replica of a primary that lives takes over (a manual failover,
// a primary that was paused or cut off and comes back), both may have subscribers
// for a moment. Nothing goes uncounted, but in a room without a history what is
// said in that moment may be in different order for the members of different
// hubs.
//
// A publish that nobody received although this hub is subscribed is taken as
// proof that its subscription is broken: it is mended, and the message sent
// again. An idle connection is probed by a message to itself, so that one that
// is connected and deaf does not stay so.
//
// # What it needs
//
// Redis 7.0 or later, or Valkey. Where a server does not know a command that is
// needed, or does not let the user have it, errors and Health say which.
// Without +info a server that is replaced behind its address, and does not become
// a replica, is noticed only when connections break; without +role, INFO tells the
// role; without both, neither is noticed (the log says so).
//
// A user that is limited by ACLs needs these rights, by what it does:
//
//	always:   &fanout:* +ssubscribe +sunsubscribe +spublish +role +info +hello +ping
//	cluster:  ~fanout:* +cluster|slots +cluster|shards +exists
//	history:  ~fanout:* +fcall +function|load +info +time +cluster|myid
//	history:  +hmget +hget +hset +hlen +hgetall +hdel +del +pexpire
//	history:  +xadd +xrange +xrevrange +xtrim
//	limits:   +config|get
//	named:    +client|setinfo
//
// The rights in the last two lines may be missing, and then appear in the server's
// ACL LOG. By config|get the adapter learns how long a message may be, see
// fanout.Options.MaxMessage. By client|setinfo the client tells its name; Redis 7.0
// does not know that right, and refuses an ACL SETUSER that has it.
//
// A history is kept by two functions, which the adapter gives to servers that lack
// them. Keys are fanout:h:{room}, a stream, and fanout:h:{room}:at, a note of where
// it is; a memory policy that evicts keys with an expiry may take them.
//
// # Errors
//
// An error is final (adapter.ErrRefused) only if waiting does not cure it: a missing
// right, a command that the server does not know or take in this form, a message
// that is too long, a client that is closed. A subscription that stood once is asked for
// again even then. Everything else is tried again until the context ends: a server
// without memory or disk space, without enough replicas, one that is loading, busy
// or down, that takes no more clients, or that refuses the password to a new
// connection. The error at the end says what the server last said.
//
// Each link takes a connection out of the client's pool of dedicated connections
// (BlockingPoolSize of its options, 1,024 by default for each node). Where none
// is left Join waits, and its error and Health say so.
package sharded

import (
	"context"
	"log/slog"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/redispubsub"
	"github.com/redis/rueidis"
)

// Options configure an Adapter. The zero value, and nil, are the defaults.
type Options struct {
	// ProbeInterval is how often an idle link is probed, and servers are asked
	// who they are. Default 2 s; negative is never.
	ProbeInterval time.Duration

	// ProbeTimeout is how long a server may be silent, when it was asked
	// something, before its connection is given up. Default 5 s.
	ProbeTimeout time.Duration

	// Logger gets broken links, and why there are none. Default slog.Default().
	Logger *slog.Logger
}

// An Adapter is a adapter.Adapter, a adapter.AsyncPublisher, a adapter.Historian and a
// adapter.HealthChecker.
// Make one for each hub.
type Adapter struct{ engine redispubsub.Backend }

var (
	_ adapter.Adapter        = (*Adapter)(nil)
	_ adapter.AsyncPublisher = (*Adapter)(nil)
	_ adapter.Historian      = (*Adapter)(nil)
	_ adapter.HealthChecker  = (*Adapter)(nil)
)

// New returns an adapter on a client, which stays the caller's: close it after
// the hub. Nothing is sent to Redis yet. Nil options are the defaults. The
// errors are a nil client and options out of range (adapter.ErrInvalidOption).
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

// Open returns an adapter with a client of its own, which is made with option, but
// for DisableCache, which is always set. The adapter closes the client when it is
// closed. Nil options are the defaults.
//
// Open does not connect; the hub does, when it is made. While the servers cannot be
// reached, refuse the password, or make up a cluster without slots, that is tried
// again, with pauses of up to 500 ms, until it succeeds or the hub is closed.
// Meanwhile Join and Publish wait. Their errors, Health and the log (at most once a
// minute) say what is wrong. The errors of Open are options that waiting does not
// cure, such as an empty InitAddress (adapter.ErrInvalidOption).
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
		ProbeInterval: o.ProbeInterval,
		ProbeTimeout:  o.ProbeTimeout,
		Logger:        o.Logger,
	}
}

// Attach implements adapter.Adapter.
func (a *Adapter) Attach(r adapter.Receiver) error { return a.engine.Attach(r) }

// Subscribe implements adapter.Adapter.
func (a *Adapter) Subscribe(ctx context.Context, channel string) error {
	return a.engine.Subscribe(ctx, channel)
}

// Unsubscribe implements adapter.Adapter.
func (a *Adapter) Unsubscribe(ctx context.Context, channel string) error {
	return a.engine.Unsubscribe(ctx, channel)
}

// Publish implements adapter.Adapter. It returns the number of hubs that are
// subscribed to the channel.
func (a *Adapter) Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	return a.engine.Publish(ctx, channel, frame)
}

// PublishAsync implements adapter.AsyncPublisher.
func (a *Adapter) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	return a.engine.PublishAsync(channel, frame, done)
}

// Append implements adapter.Historian.
func (a *Adapter) Append(ctx context.Context, channel string, r adapter.Record) (at adapter.Position, receivers int, err error) {
	return a.engine.Append(ctx, channel, r)
}

// History implements adapter.Historian.
func (a *Adapter) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	return a.engine.History(ctx, channel, q)
}

// Health implements adapter.HealthChecker.
func (a *Adapter) Health() error { return a.engine.Health() }

// Close implements adapter.Adapter. A client that New was given stays open; that of
// Open is closed. Close does not wait for a client that has no connection to give
// (BlockingPoolSize): one goroutine for each node of the servers then stays, until
// the client has one, or is closed.
func (a *Adapter) Close(ctx context.Context) error { return a.engine.Close(ctx) }
