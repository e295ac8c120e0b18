package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/nats-io/nats.go"
)

// A queue has the items that the sender sends, in order. The sender takes all
// items and writes them, and the confirmer then waits once until the server has
// them. So publishes at the same time share a round trip.
type queue struct {
	mu     sync.Mutex
	items  []*item
	closed bool
	err    error // the server did not answer the last time
	nc     *nats.Conn
	denied map[string]error

	wake    chan struct{}
	heard   chan struct{}  // closed and made anew when something is denied
	batches chan []*item   // from the sender to the confirmer
	sent    sync.WaitGroup // the sender and the confirmer
	counts  []uint64       // by partition: frames sent; the sender's own
}

func (q *queue) init(partitions int) {
	q.wake = make(chan struct{}, 1)
	q.heard = make(chan struct{})
	q.batches = make(chan []*item)
	q.counts = make([]uint64, partitions)
}

// An item is something to send. Only frames have done.
type item struct {
	kind      byte
	partition int
	channel   string
	frame     []byte
	mark      mark
	ask       ask
	claim     claim
	kept      []uint64
	bye       bool
	done      adapter.Completion
	taken     bool   // by the sender; guarded by queue.mu
	life      uint64 // of the connection that it was written to
}

// put adds an item. It reports false if the queue is closed.
func (q *queue) put(i *item) bool {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false
	}
	q.items = append(q.items, i)
	q.mu.Unlock()
	signal(q.wake)
	return true
}

// withdraw takes an item back, if the sender does not have it yet.
func (q *queue) withdraw(i *item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i.taken {
		return false
	}
	for n, other := range q.items {
		if other == i {
			q.items = append(q.items[:n], q.items[n+1:]...)
			return true
		}
	}
	return false
}

func (q *queue) take() (items []*item, nc *nats.Conn, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items, q.items = q.items, nil
	for _, i := range items {
		i.taken = true
	}
	return items, q.nc, q.closed
}

func (q *queue) connect(nc *nats.Conn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nc, q.denied, q.err = nc, nil, nil
}

func (q *queue) deny(key string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.denied == nil {
		q.denied = make(map[string]error)
	}
	q.denied[key] = err
	close(q.heard)
	q.heard = make(chan struct{})
}

func (q *queue) stalled() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	signal(q.wake)
}

// A result waits for one Publish.
type result chan outcome

type outcome struct {
	receivers int
	err       error
}

func (r result) Complete(receivers int, err error) { r <- outcome{receivers, err} }

// Publish implements adapter.Adapter. The number of receivers is always -1.
func (a *Adapter) Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	done := make(result, 1)
	i := &item{kind: kindFrame, partition: partitionOf(channel, a.o.Partitions), channel: channel, frame: frame, done: done}
	if !a.out.put(i) {
		return 0, a.publishError(channel, fmt.Errorf("%w: %w", adapter.ErrClosed, adapter.ErrUnsent))
	}
	select {
	case o := <-done:
		return o.receivers, o.err
	case <-ctx.Done():
	}
	if a.out.withdraw(i) {
		return 0, a.publishError(channel, fmt.Errorf("%w: %w", adapter.ErrUnsent, a.why(ctx)))
	}
	return 0, a.publishError(channel, a.why(ctx))
}

// PublishAsync implements adapter.AsyncPublisher.
func (a *Adapter) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	return a.out.put(&item{kind: kindFrame, partition: partitionOf(channel, a.o.Partitions), channel: channel, frame: frame, done: done})
}

func (a *Adapter) publishError(channel string, err error) error {
	return fmt.Errorf("nats: publish to %q: %w", channel, err)
}

// why returns the error of ctx, with what is wrong with the backend.
func (a *Adapter) why(ctx context.Context) error {
	if err := a.Health(); err != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return context.Cause(ctx)
}

// send is the sender: it numbers and writes what is in the queue.
func (a *Adapter) send() {
	defer a.out.sent.Done()
	defer close(a.out.batches)
	var buffer []byte
	for {
		<-a.out.wake
		items, nc, closed := a.out.take()
		if closed {
			items = append(items, &item{kind: kindBeacon, bye: true, kept: a.seen()})
		}
		batch := items[:0]
		for _, i := range items {
			var err error
			if buffer, err = a.write(nc, i, buffer[:0]); err != nil {
				a.complete(i, err)
			} else if i.done != nil || i.bye {
				batch = append(batch, i)
			}
		}
		if cap(buffer) > 1<<20 {
			buffer = nil
		}
		if len(batch) > 0 {
			a.out.batches <- batch
		}
		if closed {
			return
		}
	}
}

func (a *Adapter) seen() []uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]uint64(nil), a.lastKept...)
}

// write writes an item to the client's buffer.
func (a *Adapter) write(nc *nats.Conn, i *item, b []byte) ([]byte, error) {
	if nc == nil {
		return b, fmt.Errorf("%w: %w", adapter.ErrUnsent, errors.New("not connected"))
	}
	counts, subject := a.out.counts, a.syncSubject()
	switch i.kind {
	case kindFrame:
		subject = a.subject(i.partition)
		b = appendFrame(b, a.id, counts[i.partition]+1, i.channel, i.frame)
	case kindMark:
		subject = a.subject(i.partition)
		i.mark.sent = counts[i.partition]
		b = appendMark(b, i.mark)
	case kindAsk:
		for _, p := range i.ask.partitions {
			i.ask.sent = append(i.ask.sent, counts[p])
		}
		b = appendAsk(b, i.ask)
	case kindClaim:
		b = appendClaim(b, i.claim)
	case kindBeacon:
		b = appendBeacon(b, &beacon{id: a.id, partitions: a.o.Partitions, bye: i.bye, sent: counts, kept: i.kept})
	}
	if most := nc.MaxPayload(); most > 0 && int64(len(b)) > most {
		return b, fmt.Errorf("%w: %w: %d bytes are more than the server's max_payload, which is %d", adapter.ErrUnsent, adapter.ErrRefused, len(b), most)
	}
	i.life = nc.Stats().Reconnects
	err := nc.Publish(subject, b)
	switch {
	case err == nil:
		if i.kind == kindFrame {
			counts[i.partition]++
		}
		return b, nil
	case unsent(err):
		return b, fmt.Errorf("%w: %w", adapter.ErrUnsent, err)
	}
	if i.kind == kindFrame {
		counts[i.partition]++ // it may have got through
	}
	return b, err
}

// unsent reports whether the client has written nothing.
func unsent(err error) bool {
	for _, e := range []error{
		nats.ErrReconnectBufExceeded, nats.ErrConnectionClosed, nats.ErrConnectionDraining, nats.ErrMaxPayload, nats.ErrBadSubject,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// confirm is the confirmer: it waits until the server has what was written.
func (a *Adapter) confirm() {
	defer a.out.sent.Done()
	for batch := range a.out.batches {
		nc := a.connection()
		if nc == nil {
			a.completeAll(batch, errors.New("the connection is gone"))
			continue
		}
		ctx, cancel := context.WithTimeout(a.life, flushIn)
		if batch[len(batch)-1].bye {
			cancel()
			ctx, cancel = context.WithTimeout(context.WithoutCancel(a.life), flushIn/10)
		}
		err := nc.FlushWithContext(ctx)
		cancel()
		life := nc.Stats().Reconnects
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the server does not answer: %w", err)
			a.out.note(fmt.Errorf("nats: %w", err))
		} else {
			a.out.note(nil)
		}
		if err != nil {
			a.completeAll(batch, err)
			continue
		}
		a.out.settleDenials(nc)
		for _, i := range batch {
			switch err := a.out.denial(a.subject(i.partition)); {
			case i.life != life:
				a.complete(i, errors.New("the connection broke before the server had confirmed it"))
			case err != nil:
				a.complete(i, fmt.Errorf("%w: %w", adapter.ErrRefused, err))
			default:
				a.complete(i, nil)
			}
		}
	}
}

func (a *Adapter) connection() *nats.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.link.nc
}

func (q *queue) note(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
}

// settleDenials waits until the client has reported the last thing that the
// server did not permit. The client reports these in the server's order, on
// another goroutine, and may set its last error before it does.
func (q *queue) settleDenials(nc *nats.Conn) {
	key, ok := denied(nc.LastError())
	if !ok {
		return
	}
	deadline := time.NewTimer(time.Second)
	defer deadline.Stop()
	for {
		q.mu.Lock()
		_, known := q.denied[key]
		heard := q.heard
		q.mu.Unlock()
		if known {
			return
		}
		select {
		case <-heard:
		case <-deadline.C:
			return
		}
	}
}

func (q *queue) denial(subject string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.denied["publish "+subject]
}

func (a *Adapter) completeAll(items []*item, err error) {
	for _, i := range items {
		a.complete(i, err)
	}
}

func (a *Adapter) complete(i *item, err error) {
	if i.done == nil {
		return
	}
	if err != nil {
		i.done.Complete(0, a.publishError(i.channel, err))
		return
	}
	i.done.Complete(-1, nil)
}
