package main

import (
	"context"
	"fmt"

	"github.com/centrifugal/centrifuge"
	"github.com/fanoutgo/fanout/internal/redistest"
)

// centrifugePeer is the Redis broker of Centrifuge, without Centrifuge's nodes:
// messages are published to the broker directly, and counted in the broker's
// event handler, so that Centrifuge's hub and clients cost nothing. It uses
// classic Pub/Sub, since Centrifuge has sharded Pub/Sub for clusters only. Its
// client has Centrifuge's settings: it waits up to 100 µs for more to send
// together.
//
// Messages go from the connection to as many goroutines as there are
// processors, through queues of 4,096; a message that finds its queue full is
// dropped.
type centrifugePeer struct {
	publisher, receiver *centrifugeBroker
	channels            []string
}

// A centrifugeBroker is one side.
type centrifugeBroker struct {
	*centrifuge.RedisBroker
	shard *centrifuge.RedisShard
}

func openCentrifuge(ctx context.Context, s servers, rooms int, t *tally) (_ redisPeer, err error) {
	p := new(centrifugePeer)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	node := nodesOf(s)[0]
	if p.publisher, err = newCentrifugeBroker(ctx, node); err != nil {
		return nil, err
	}
	if p.receiver, err = newCentrifugeBroker(ctx, node); err != nil {
		return nil, err
	}
	if err := p.receiver.RegisterBrokerEventHandler(centrifugeEvents{t}); err != nil {
		return nil, err
	}
	for i := range rooms {
		p.channels = append(p.channels, roomName(i))
	}
	if err := p.receiver.Subscribe(p.channels...); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return p, nil
}

func newCentrifugeBroker(ctx context.Context, at *redistest.Node) (*centrifugeBroker, error) {
	node, err := centrifuge.New(centrifuge.Config{}) // never run; the broker needs its metrics
	if err != nil {
		return nil, err
	}
	addr, err := at.HostAddr(ctx)
	if err != nil {
		return nil, err
	}
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: addr})
	if err != nil {
		return nil, err
	}
	b, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
	if err != nil {
		shard.Close()
		return nil, err
	}
	return &centrifugeBroker{b, shard}, nil
}

// publish publishes one message after the other: Centrifuge cannot publish
// several messages at a time.
func (p *centrifugePeer) publish(_ context.Context, batch []post) error {
	for _, m := range batch {
		if _, err := p.publisher.Publish(p.channels[m.room], m.data, centrifuge.PublishOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (p *centrifugePeer) close() error {
	for _, b := range []*centrifugeBroker{p.publisher, p.receiver} {
		if b != nil {
			b.Close(context.Background()) // it returns no error
			b.shard.Close()
		}
	}
	return nil
}

// centrifugeEvents is the centrifuge.BrokerEventHandler.
type centrifugeEvents struct{ t *tally }

func (e centrifugeEvents) HandlePublication(_ string, p *centrifuge.Publication, _ centrifuge.StreamPosition, _ bool, _ *centrifuge.Publication) error {
	e.t.note(p.Data)
	return nil
}

func (e centrifugeEvents) HandleJoin(string, *centrifuge.ClientInfo) error  { return nil }
func (e centrifugeEvents) HandleLeave(string, *centrifuge.ClientInfo) error { return nil }
