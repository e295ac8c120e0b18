package main

import (
	"context"
	"fmt"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
)

// rawPeer is the client library that fanout uses, used in the simplest way: a
// command for each message, and a receiver that counts on the connection's own
// goroutine. It numbers nothing, keeps no order among its connections and
// notices no loss.
type rawPeer struct {
	commands  pubsub
	publisher rueidis.Client
	receiver  rueidis.Client
	links     []rueidis.DedicatedClient
	channels  []string
}

// pubsub has the commands of classic or sharded Pub/Sub.
type pubsub struct {
	publish   func(b rueidis.Builder, channel, message string) rueidis.Completed
	subscribe func(b rueidis.Builder, channel string) rueidis.Completed
	sharded   bool
}

var (
	shardedCommands = pubsub{
		publish: func(b rueidis.Builder, channel, message string) rueidis.Completed {
			return b.Spublish().Channel(channel).Message(message).Build()
		},
		subscribe: func(b rueidis.Builder, channel string) rueidis.Completed {
			return b.Ssubscribe().Channel(channel).Build()
		},
		sharded: true,
	}
	classicCommands = pubsub{
		publish: func(b rueidis.Builder, channel, message string) rueidis.Completed {
			return b.Publish().Channel(channel).Message(message).Build()
		},
		subscribe: func(b rueidis.Builder, channel string) rueidis.Completed {
			return b.Subscribe().Channel(channel).Build()
		},
	}
)

// openRaw opens a peer that uses rueidis alone.
func openRaw(commands pubsub, opts ...func(*rueidis.ClientOption)) redisOpener {
	return func(ctx context.Context, s servers, rooms int, t *tally) (_ redisPeer, err error) {
		p := &rawPeer{commands: commands}
		defer func() {
			if err != nil {
				p.close()
			}
		}()
		for i := range rooms {
			p.channels = append(p.channels, channelOf(i))
		}
		if p.publisher, err = dial(s, opts...); err != nil {
			return nil, err
		}
		if p.receiver, err = dial(s, opts...); err != nil {
			return nil, err
		}
		return p, p.subscribe(ctx, s, t)
	}
}

// roomName returns the name of a room, for all contestants.
func roomName(i int) string { return fmt.Sprintf("room-%d", i) }

// channelOf returns the channel of a room as fanout names it, so that the
// channels of others are as long and in the same slot.
func channelOf(room int) string { return "fanout:r:{" + roomName(room) + "}" }

// subscribe subscribes each channel at its home, on one connection to each.
func (p *rawPeer) subscribe(ctx context.Context, s servers, t *tally) error {
	homes := make(map[string][]string)
	for _, channel := range p.channels {
		home := nodesOf(s)[0]
		if c, ok := s.(*redistest.Cluster); ok && p.commands.sharded {
			home = c.Owner(redistest.Slot(channel))
		}
		homes[home.Addr()] = append(homes[home.Addr()], channel)
	}
	nodes := p.receiver.Nodes()
	for addr, channels := range homes {
		node, ok := nodes[addr]
		if !ok {
			return fmt.Errorf("the client does not know node %s", addr)
		}
		link, _ := node.Dedicate()
		p.links = append(p.links, link)
		link.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(m rueidis.PubSubMessage) {
			t.note([]byte(m.Message[:stampLength]))
		}})
		subscribe := make(rueidis.Commands, len(channels))
		for i, channel := range channels {
			subscribe[i] = p.commands.subscribe(link.B(), channel)
		}
		for _, result := range link.DoMulti(ctx, subscribe...) {
			if err := result.Error(); err != nil {
				return fmt.Errorf("subscribe: %w", err)
			}
		}
	}
	return nil
}

func (p *rawPeer) publish(ctx context.Context, batch []post) error {
	if len(batch) == 1 {
		return p.publisher.Do(ctx, p.build(batch[0])).Error()
	}
	commands := make(rueidis.Commands, len(batch))
	for i, m := range batch {
		commands[i] = p.build(m)
	}
	for _, result := range p.publisher.DoMulti(ctx, commands...) {
		if err := result.Error(); err != nil {
			return err
		}
	}
	return nil
}

func (p *rawPeer) build(m post) rueidis.Completed {
	return p.commands.publish(p.publisher.B(), p.channels[m.room], rueidis.BinaryString(m.data))
}

func (p *rawPeer) close() error {
	for _, link := range p.links {
		link.Close()
	}
	for _, client := range []rueidis.Client{p.publisher, p.receiver} {
		if client != nil {
			client.Close()
		}
	}
	return nil
}
