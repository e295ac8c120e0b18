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
// to all rooms, and notes what comes in a tally.
type redisPeer interface {
	// publish hands over messages that are not to wait for each other, and
	// returns when the servers have taken all of them. The data may be used
	// again then.
	publish(ctx context.Context, batch []post) error
	close() error
}

// A redisOpener sets up a peer: connections, subscriptions to rooms 0 to rooms-1.
// Publisher and receiver share no connection, as if they were two processes.
type redisOpener func(ctx context.Context, s servers, rooms int, t *tally) (redisPeer, error)

// dial returns a client of the servers that stands on a plain connection: that of
// redistest, which tests can break, would slow down those who use it, and not
// Centrifuge, which connects by itself.
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

// lateFlush has a client wait, after it has sent something, for up to so long
// that there is more to send. Centrifuge sets its client so; rueidis' default is
// not to wait.
func lateFlush(o *rueidis.ClientOption) { o.MaxFlushDelay = 100 * time.Microsecond }

// A crowd is those who publish at the same time. Each hands over a batch, waits
// until it is taken, and goes on with the next.
type crowd struct{ publishers, batch int }

// crowdOf is a crowd of so many who each wait for every message.
func crowdOf(publishers int) crowd { return crowd{publishers: publishers, batch: 1} }

// publish has the crowd publish for a while, and returns the number of messages
// that were taken.
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

// publisher is publish, to be measured.
func (c crowd) publisher(ctx context.Context, p redisPeer, rooms int, d time.Duration) func() (int64, error) {
	return func() (int64, error) { return c.publish(ctx, p, rooms, d) }
}

// each runs f for each of the crowd at once, and sums up.
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

// A reading is what clocks and servers say at one moment.
type reading struct {
	at      time.Time
	own     time.Duration
	servers usage
}

func takeReading(ctx context.Context, s servers) (reading, error) {
	u, err := usageOf(ctx, s)
	return reading{time.Now(), ownCPU(), u}, err
}

// A sample is what it took to publish some messages and to receive them.
type sample struct {
	messages, lost      int64
	published, received time.Duration // until all were taken, until the last came
	own                 time.Duration
	servers             usage
}

// measure has messages published, waits until all have come, and returns what
// it took. What was published before must have come.
func measure(ctx context.Context, s servers, t *tally, publish func() (int64, error)) (m sample, err error) {
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

// figures are those of one message, or of one second.
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
