package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge"
)

// centrifugePartitions is the number of hash tags over which the channels are
// spread, each with a connection of its own. It is the smallest number for
// which Centrifuge has evenly spread tags, and its best one: resubscribing all
// channels takes time proportional to their number times this one. With 128 it
// took ten seconds.
const centrifugePartitions = 16

// centrifuge subscribes the channels of all rooms with the Redis broker of
// Centrifuge, sharded, without Centrifuge's nodes: there is no hub and no
// client. Rooms are joined one by one, as with fanout. Centrifuge does not
// report interruptions, so the servers are asked until they have all
// subscriptions again; that costs some of the processor time.
func (e *estate) centrifuge(ctx context.Context) (f figures, err error) {
	node, err := centrifuge.New(centrifuge.Config{}) // never run; the broker needs its metrics
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, n := range e.cluster.Nodes() {
		addrs = append(addrs, n.Addr())
	}
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{ClusterAddresses: addrs})
	if err != nil {
		return nil, err
	}
	defer shard.Close()
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{
		Shards:                      []*centrifuge.RedisShard{shard},
		NumShardedPubSubPartitions:  centrifugePartitions,
		UsePrecomputedPartitionTags: true,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, broker.Close(ctx)) }()
	if err := broker.RegisterBrokerEventHandler(deafEvents{}); err != nil {
		return nil, err
	}
	before, err := e.subscribed(ctx)
	if err != nil {
		return nil, err
	}
	rate, err := e.eachRoom(func(i int) error { return broker.Subscribe(e.rooms[i]) })
	if err != nil {
		return nil, err
	}
	all := before + len(e.rooms)
	f, err = e.outage(ctx, func(ctx context.Context) (time.Time, error) { return e.awaitSubscribed(ctx, all) })
	if err != nil {
		return nil, err
	}
	f["join"] = rate
	return f, nil
}

// plainlyDialed reports whether the servers can be dialed at the addresses that
// they announce. With containers that is not always so, and Centrifuge cannot
// be given other addresses.
func (e *estate) plainlyDialed(ctx context.Context) bool {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", e.cluster.Nodes()[0].Addr())
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// subscribed returns the number of channels that have subscribers at the
// servers.
func (e *estate) subscribed(ctx context.Context) (int, error) {
	var sum atomic.Int64
	nodes := e.cluster.Nodes()
	err := inParallel(len(nodes), func(i int) error {
		info, err := nodes[i].Do(ctx, "INFO", "stats").ToString()
		sum.Add(int64(statistic(info, "pubsubshard_channels")))
		return err
	})
	return int(sum.Load()), err
}

func (e *estate) awaitSubscribed(ctx context.Context, n int) (time.Time, error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		have, err := e.subscribed(ctx)
		if err != nil || have >= n {
			return time.Now(), err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Now(), fmt.Errorf("%d of %d channels are subscribed: %w", have, n, context.Cause(ctx))
		}
	}
}

// deafEvents is a centrifuge.BrokerEventHandler.
type deafEvents struct{}

func (deafEvents) HandlePublication(string, *centrifuge.Publication, centrifuge.StreamPosition, bool, *centrifuge.Publication) error {
	return nil
}
func (deafEvents) HandleJoin(string, *centrifuge.ClientInfo) error  { return nil }
func (deafEvents) HandleLeave(string, *centrifuge.ClientInfo) error { return nil }
