// Package sharded joins hubs through the sharded Pub/Sub of Redis 7 and later,
// or Valkey: in a Redis Cluster a message goes to the one primary that owns the
// room's slot, and not to every node.
//
//	client, err := rueidis.NewClient(rueidis.ClientOption{
//		InitAddress:  []string{"10.0.0.1:6379"},
//		DisableCache: true, // a client that only publishes and subscribes needs none
//	})
//	...
//	a, err := sharded.New(client, nil)
//	...
//	hub, err := fanout.New(a, nil)
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
// with a history (fanout.Options.Retain) they get those messages, and notice
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
// fanout.ErrUnsent, and Health says so. A publish that nobody received is sent
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
// Redis 7.0 or later, or Valkey. With ACLs: the channels of the prefix
// (&fanout:*), +ssubscribe +sunsubscribe +spublish +role +info, in a cluster
// +cluster|slots +cluster|shards, and what the client itself uses to
// connect: +hello +ping +client|setinfo. In a cluster +exists for the keys
// of the prefix (~fanout:*) helps the client to find a node that it has forgotten.
// Without +info a server that is replaced behind its address, and does not become
// a replica, is noticed only when connections break; without +role, INFO tells the
// role; without both, neither is noticed (the log says so).
//
// Rooms with a history need those keys, and +fcall +function|load +info +time
// +cluster|myid +hmget +hget +hset +hlen +hgetall +hdel +del +pexpire +xadd
// +xrange +xrevrange +xtrim: the history is kept by two functions, which the adapter gives
// to servers that lack them. Keys are fanout:h:{room}, a stream, and
// fanout:h:{room}:at, a note of where it is; a memory policy that evicts keys
// with an expiry may take them.
package sharded

import (
	"context"
	"log/slog"
	"time"

	"github.com/fanoutgo/fanout"
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

	// Logger gets broken links. Default slog.Default().
	Logger *slog.Logger
}

// An Adapter is a fanout.Adapter, a fanout.AsyncPublisher, a fanout.Historian and a
// fanout.HealthChecker.
// Make one for each hub.
type Adapter struct{ engine *redispubsub.Engine }

var (
	_ fanout.Adapter        = (*Adapter)(nil)
	_ fanout.AsyncPublisher = (*Adapter)(nil)
	_ fanout.Historian      = (*Adapter)(nil)
	_ fanout.HealthChecker  = (*Adapter)(nil)
)

// New returns an adapter on a client, which stays the caller's: close it after
// the hub. Nothing is sent to Redis yet. Nil options are the defaults. The
// errors are a nil client and options out of range (fanout.ErrInvalidOption).
func New(client rueidis.Client, o *Options) (*Adapter, error) {
	if o == nil {
		o = new(Options)
	}
	e, err := redispubsub.New(client, redispubsub.Config{
		Name:          "sharded",
		Sharded:       true,
		ProbeInterval: o.ProbeInterval,
		ProbeTimeout:  o.ProbeTimeout,
		Logger:        o.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &Adapter{e}, nil
}

// Attach implements fanout.Adapter.
func (a *Adapter) Attach(r fanout.Receiver) error { return a.engine.Attach(r) }

// Subscribe implements fanout.Adapter.
func (a *Adapter) Subscribe(ctx context.Context, channel string) error {
	return a.engine.Subscribe(ctx, channel)
}

// Unsubscribe implements fanout.Adapter.
func (a *Adapter) Unsubscribe(ctx context.Context, channel string) error {
	return a.engine.Unsubscribe(ctx, channel)
}

// Publish implements fanout.Adapter. It returns the number of hubs that are
// subscribed to the channel.
func (a *Adapter) Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	return a.engine.Publish(ctx, channel, frame)
}

// PublishAsync implements fanout.AsyncPublisher.
func (a *Adapter) PublishAsync(channel string, frame []byte, done fanout.Completion) bool {
	return a.engine.PublishAsync(channel, frame, done)
}

// Append implements fanout.Historian.
func (a *Adapter) Append(ctx context.Context, channel string, r fanout.Record) (at fanout.Position, receivers int, err error) {
	return a.engine.Append(ctx, channel, r)
}

// History implements fanout.Historian.
func (a *Adapter) History(ctx context.Context, channel string, q fanout.Query) (fanout.Page, error) {
	return a.engine.History(ctx, channel, q)
}

// Health implements fanout.HealthChecker.
func (a *Adapter) Health() error { return a.engine.Health() }

// Close implements fanout.Adapter. The client stays open.
func (a *Adapter) Close(ctx context.Context) error { return a.engine.Close(ctx) }
