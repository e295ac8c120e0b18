package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
)

// hubPeer is fanout: a hub that publishes, and another one with one member in
// all rooms, whose goroutine receives in batches. In addition to what raw
// rueidis does it keeps one order in each room, numbers messages and would
// report each loss, and passes messages from the connection's goroutine to the
// member's.
type hubPeer struct {
	disconnects []func()
	hubs        []*fanout.Hub
	rooms       []*fanout.Room // of the hub that publishes
	receiver    sync.WaitGroup
	failed      error // of the receiver, once it has ended
}

type newAdapter func(rueidis.Client) (fanout.Adapter, error)

func shardedAdapter(c rueidis.Client) (fanout.Adapter, error) { return sharded.New(c, nil) }
func classicAdapter(c rueidis.Client) (fanout.Adapter, error) { return redis.New(c, nil) }

// openHubs opens a peer of two hubs on Redis.
func openHubs(adapter newAdapter, opts ...func(*rueidis.ClientOption)) redisOpener {
	return func(ctx context.Context, s servers, rooms int, t *tally) (redisPeer, error) {
		return openHubPair(ctx, rooms, t, func(int) (fanout.Adapter, func(), error) {
			client, err := dial(s, opts...)
			if err != nil {
				return nil, nil, err
			}
			a, err := adapter(client)
			return a, client.Close, err
		})
	}
}

// A connector returns an adapter for a hub, 0 or 1, and a function that ends
// what it uses.
type connector func(hub int) (a fanout.Adapter, disconnect func(), err error)

// openHubPair opens a peer of two hubs: hub 0 publishes and hub 1 receives.
func openHubPair(ctx context.Context, rooms int, t *tally, connect connector) (_ redisPeer, err error) {
	p := new(hubPeer)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	publisher, err := p.hub(connect, 0)
	if err != nil {
		return nil, err
	}
	receiver, err := p.hub(connect, 1)
	if err != nil {
		return nil, err
	}
	for i := range rooms {
		p.rooms = append(p.rooms, publisher.Room(roomName(i)))
	}
	member, err := receiver.Connect(nil)
	if err != nil {
		return nil, err
	}
	if err := joinAll(ctx, receiver, member, rooms); err != nil {
		return nil, err
	}
	p.receiver.Go(func() { p.failed = p.receive(member, t) })
	return p, nil
}

func (p *hubPeer) hub(connect connector, i int) (*fanout.Hub, error) {
	a, disconnect, err := connect(i)
	if disconnect != nil {
		p.disconnects = append(p.disconnects, disconnect)
	}
	if err != nil {
		return nil, err
	}
	// No contestant holds back publishers that are faster than the receiver:
	// messages wait in the server's buffer then. So the room's window must hold
	// what arrives while the member's goroutine waits for a processor.
	hub, err := fanout.New(a, &fanout.Options{Window: fanout.Window{Messages: 1 << 20, Bytes: 1 << 28}})
	if err == nil {
		p.hubs = append(p.hubs, hub)
	}
	return hub, err
}

func joinAll(ctx context.Context, hub *fanout.Hub, member *fanout.Member, rooms int) error {
	_, err := crowdOf(64).each(func(i int) (int64, error) {
		for ; i < rooms; i += 64 {
			if err := hub.Room(roomName(i)).Join(ctx, member); err != nil {
				return 0, err
			}
		}
		return 0, nil
	})
	return err
}

// receive notes what a member receives until it is closed.
func (p *hubPeer) receive(member *fanout.Member, t *tally) error {
	buf := make([]fanout.Message, 256)
	for {
		n, err := member.ReceiveBatch(context.Background(), buf)
		if err != nil {
			return err
		}
		for i := range n {
			t.note(buf[i].Data)
		}
	}
}

func (p *hubPeer) publish(ctx context.Context, batch []post) error {
	if len(batch) == 1 {
		return p.rooms[batch[0].room].Publish(ctx, batch[0].data)
	}
	// Callbacks are called one after the other, so they may count without a
	// lock.
	left, outcome, failed := len(batch), make(chan error, 1), error(nil)
	done := func(err error) {
		failed = errors.Join(failed, err)
		if left--; left == 0 {
			outcome <- failed
		}
	}
	for _, m := range batch {
		if err := p.rooms[m.room].PublishAsync(ctx, m.data, done); err != nil {
			return err
		}
	}
	return <-outcome
}

func (p *hubPeer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var errs []error
	for _, hub := range p.hubs {
		errs = append(errs, hub.Close(ctx))
	}
	p.receiver.Wait()
	for _, disconnect := range p.disconnects {
		disconnect()
	}
	if p.failed != nil && !errors.Is(p.failed, fanout.ErrClosed) {
		errs = append(errs, fmt.Errorf("receive: %w", p.failed))
	}
	return errors.Join(errs...)
}
