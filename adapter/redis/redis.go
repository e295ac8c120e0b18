// Package redis joins hubs through the classic Pub/Sub of Redis 6 and later, or
// Valkey. It suits a single server and Sentinel.
//
// In a Redis Cluster it works, but each message goes to every node: use package
// sharded there.
//
//	a, err := redis.Open(rueidis.ClientOption{InitAddress: []string{"10.0.0.1:6379"}}, nil)
//	...
//	hub, err := fanout.New(a, nil)
//
// Open makes a client that the adapter owns, and the adapter connects when it
// can. New uses a client of the caller's; set DisableCache in its options,
// since publishing and subscribing need no cache.
//
// Each room is subscribed by its exact name. The adapter never uses patterns,
// since each pattern costs the server time for every message that is published.
//
// There is one connection for subscriptions; in a cluster, one for each primary
// that has rooms. It is made with the options of the client: TLS, users and
// passwords, RESP3. Publishing uses the connections of the client itself. When
// a connection breaks the adapter connects again at once, then with growing,
// random pauses.
//
// A server that has become a replica continues to accept subscriptions and
// messages, but need not pass them on. The same happens when an address leads
// to another server while connections to the old one remain. Package sharded
// documents how hubs notice that and follow the address, and what happens
// without the rights +role and +info. It takes about one ProbeInterval, or
// three if the old server stays a primary. Messages that are published
// meanwhile in rooms without a history may be lost; members are told.
//
// Rooms with a history (fanout.RoomOptions.Retain) need Redis 7.0 or later, or
// Valkey. Which errors are final, and what is tried again, is as in package
// sharded.
//
// # Rights
//
// A user that is limited by ACLs needs these rights, depending on what it does:
//
//	always:   &fanout:* +subscribe +unsubscribe +publish +role +info +hello +ping
//	cluster:  ~fanout:* +cluster|slots +cluster|shards +exists
//	history:  ~fanout:* +fcall +function|load +info +time +cluster|myid
//	history:  +hmget +hget +hset +hlen +hgetall +hdel +del +pexpire
//	history:  +xadd +xrange +xrevrange +xtrim
//	scripts:  +evalsha +script|load
//	limits:   +config|get
//	named:    +client|setinfo
//
// The rights for scripts are needed where functions are refused, in place of
// +fcall and +function|load: package sharded documents how histories are kept.
//
// The rights in the last two lines are optional; without them the attempts
// appear in the server's ACL LOG. With config|get the adapter learns how long a
// message may be, see fanout.Options.MaxMessage. With client|setinfo the client
// tells its name; Redis 7.0 and earlier do not know that right, and refuse an
// ACL SETUSER that has it. Redis 6.0 does not know &, and Redis 6 does not know
// cluster|shards.
//
// # In a cluster
//
// A room's messages are published and subscribed at the primary that owns the
// slot of its channel, so that there is one order. While slots move, hubs may
// disagree for some seconds about which node that is, and messages pass from
// one node to the other over the cluster's bus. In a room without a history
// this has three consequences:
//
//   - members of two hubs may see the messages of two publishers in different
//     orders;
//   - the first message that a hub publishes at the new node may overtake the
//     one before it: members then get that one reported as missed;
//   - the bus loses messages, and says nothing, if the connection between the
//     two nodes breaks just then: members are told when the same hub publishes
//     again, and not at all if it never does.
package redis

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

	// Logger gets warnings about connections that break or cannot be made.
	// Default slog.Default().
	Logger *slog.Logger
}

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
		Name:          "redis",
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
	return redispubsub.Check(ctx, client, false)
}

// Publish implements adapter.Adapter. It returns the number of hubs that are
// subscribed to the channel, or -1 in a cluster.
func (a *Adapter) Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	return a.backend.Publish(ctx, channel, frame)
}

// Close implements adapter.Adapter. It closes the client if Open made the
// adapter. It does not wait for connections from a client whose pool is used up
// (BlockingPoolSize): then one goroutine for each node remains until the client
// has a connection for it or is closed.
func (a *Adapter) Close(ctx context.Context) error { return a.backend.Close(ctx) }
