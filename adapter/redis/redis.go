// Package redis joins hubs through the classic Pub/Sub of Redis, any version
// from 6 on, or Valkey. It suits a single server and Sentinel.
//
// In a Redis Cluster it works, but each message goes to every node: use package
// sharded there.
//
//	a, err := redis.Open(rueidis.ClientOption{InitAddress: []string{"10.0.0.1:6379"}}, nil)
//	...
//	hub, err := fanout.New(a, nil)
//
// Open makes a client that the adapter owns, and connects when it can. New takes a
// client of yours; set DisableCache, since publishing and subscribing need no cache.
//
// Each room is subscribed by its exact name. Patterns are never used: each
// pattern costs the server time for every message of everybody.
//
// There is one connection for subscriptions (in a cluster, one for each primary
// that has rooms), made with the options of the client: TLS, users and
// passwords, RESP3. Publishing goes through the client itself. A broken
// connection is made again at once, then with growing, random pauses.
//
// A server that has become a replica goes on to take subscriptions and messages,
// and need not pass them on; so does one whose address leads to another server
// by now. Package sharded says how hubs find that out and follow the address,
// and what happens without the rights +role and +info. It takes about a
// ProbeInterval, or three where the old server stays a primary; what is said in
// rooms without a history meanwhile may be lost, which members are told.
//
// Rooms with a history (fanout.RoomOptions.Retain) need Redis 7.0 or later, or Valkey.
// Which errors are final, and what is tried again, is as in package sharded.
//
// # Rights
//
// A user that is limited by ACLs needs these rights, by what it does:
//
//	always:   &fanout:* +subscribe +unsubscribe +publish +role +info +hello +ping
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
// and earlier do not know that right, and refuse an ACL SETUSER that has it. Redis
// 6.0 does not know &, and 6 not cluster|shards.
//
// # In a cluster
//
// A room's messages are published and subscribed at the primary that owns the
// slot of its channel, so that there is one order. While slots move hubs may
// disagree for some seconds on which node that is: nothing is lost by it, but
// two hubs may then see the messages of two publishers in different order. (Not
// so in rooms with a history.)
package redis

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
		Name:          "redis",
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
// subscribed to the channel, or -1 in a cluster.
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
