package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A redisPeer is a contestant that is set up: its receiving side has subscribed
// to all rooms, and counts what arrives in a tally.
type redisPeer interface {
	// publish publishes messages that do not have to wait for each other, and
	// returns when the servers have accepted all of them. The data may be
	// reused then.
	publish(ctx context.Context, batch []post) error
	close() error
}

// A redisOpener sets up a peer: connections, subscriptions to rooms 0 to
// rooms-1. Publisher and receiver share no connection, as if they were two
// processes.
type redisOpener func(ctx context.Context, s servers, rooms int, t *tally) (redisPeer, error)

// dial returns a client of the servers on a plain connection. That of
// redistest, which tests can break, would be slower for those that use it, but
// not for Centrifuge, which connects by itself.
func dial(s servers, opts ...func(*rueidis.ClientOption)) (rueidis.Client, error) {
	return connect(s, append(opts, func(o *rueidis.ClientOption) {
		o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			for _, node := range nodesOf(s) {
				if node.Addr() == addr {
					host, err := node.HostAddr(ctx)
					if err != nil {
						return nil, err
					}
					return d.DialContext(ctx, "tcp", host)
				}
			}
			return nil, fmt.Errorf("no server has the address %s", addr)
		}
	})...)
}

// lateFlush has a client wait, after it has sent something, for up to 100 µs
// for more to send. Centrifuge configures its client so; rueidis' default is
// not to wait.
func lateFlush(o *rueidis.ClientOption) { o.MaxFlushDelay = 100 * time.Microsecond }

// A crowd is publishers that publish at the same time. Each publishes a batch,
// waits until it is accepted, and continues with the next.
type crowd struct{ publishers, batch int }

// crowdOf returns a crowd of publishers that wait for every message.
func crowdOf(publishers int) crowd { return crowd{publishers: publishers, batch: 1} }

// publish has the crowd publish for a while, and returns the number of messages
// that were accepted.
func (c crowd) publish(ctx context.Context, p redisPeer, rooms int, d time.Duration) (int64, error) {
	var stop atomic.Bool
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	return c.each(func(i int) (n int64, err error) {
		// Each has a context of its own, as requests to a server have.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		batch, room := newBatch(c.batch), i%rooms
		for !stop.Load() {
			for j := range batch {
				batch[j].room = room
				room = (room + c.publishers) % rooms
			}
			if err := p.publish(ctx, batch); err != nil {
				stop.Store(true)
				return n, fmt.Errorf("publish: %w", err)
			}
			n += int64(len(batch))
		}
		return n, nil
	})
}

// publisher returns a function that calls publish, to be measured.
func (c crowd) publisher(ctx context.Context, p redisPeer, rooms int, d time.Duration) func() (int64, error) {
	return func() (int64, error) { return c.publish(ctx, p, rooms, d) }
}

// each runs f concurrently for each publisher of the crowd, and returns the
// sum.
func (c crowd) each(f func(i int) (int64, error)) (int64, error) {
	var wg sync.WaitGroup
	var sum atomic.Int64
	failed := make(chan error, c.publishers)
	for i := range c.publishers {
		wg.Go(func() {
			n, err := f(i)
			sum.Add(n)
			if err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return sum.Load(), err
	default:
		return sum.Load(), nil
	}
}

func newBatch(n int) []post {
	batch := make([]post, n)
	for i := range batch {
		batch[i].data = make([]byte, messageLength)
	}
	return batch
}

// A reading is the state of clocks and servers at one moment.
type reading struct {
	at      time.Time
	own     time.Duration
	servers usage
}

func takeReading(ctx context.Context, s metered) (reading, error) {
	u, err := s.usage(ctx)
	return reading{time.Now(), ownCPU(), u}, err
}

// A sample is the cost of publishing and receiving some messages.
type sample struct {
	messages, lost      int64
	published, received time.Duration // until all were accepted, until the last arrived
	own                 time.Duration
	servers             usage
}

// measure has messages published, waits until all have arrived, and returns the
// cost. Messages that were published before must have arrived.
func measure(ctx context.Context, s metered, t *tally, publish func() (int64, error)) (m sample, err error) {
	before := t.count.Load()
	from, err := takeReading(ctx, s)
	if err != nil {
		return m, err
	}
	if m.messages, err = publish(); err != nil {
		return m, err
	}
	m.published = time.Since(from.at)
	last, lost, err := t.await(ctx, before+m.messages)
	if err != nil {
		return m, err
	}
	m.received, m.lost = last.Sub(from.at), lost
	to, err := takeReading(ctx, s)
	m.own, m.servers = to.own-from.own, to.servers.minus(from.servers)
	return m, err
}

// figures returns the figures of one message, or of one second.
func (m sample) figures() figures {
	each := func(v float64) float64 { return v / float64(m.messages) }
	return figures{
		"published": float64(m.messages) / m.published.Seconds(),
		"received":  float64(m.messages-m.lost) / m.received.Seconds(),
		"lost":      100 * each(float64(m.lost)),
		"commands":  each(m.servers.commands),
		"in":        each(m.servers.netIn),
		"out":       each(m.servers.netOut),
		"bus":       each(m.servers.bus),
		"servers":   each(float64(m.servers.cpu) / float64(time.Microsecond)),
		"own":       each(float64(m.own) / float64(time.Microsecond)),
	}
}
