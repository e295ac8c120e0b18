package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/coalesce"
	"github.com/fanoutgo/fanout/internal/wire"
)

const (
	// maxFrame bounds the messages of a frame, in bytes. A larger message goes
	// alone. It is large enough to move dozens of chat messages at once, and
	// small enough that one held message does not hold much of others.
	maxFrame = 32 << 10

	// Publishing again waits from firstRetry on, doubling up to lastRetry,
	// each time between half of that and all of it.
	firstRetry = 10 * time.Millisecond
	lastRetry  = 500 * time.Millisecond
)

// An outbound is the way out to one channel. It gathers messages into frames,
// numbers them, and sends a frame again until the backend has it.
type outbound struct {
	hub     *Hub
	room    *roomState // nil for an inbox
	to      string     // of an inbox: the hub's ID
	channel string
	queue   coalesce.Queue[*wire.Message]

	// The numbers; used by the one send in flight.
	stream, next uint64

	// Of inboxes, guarded by Hub.outMu.
	uses int
	used time.Time
}

func (o *outbound) init(h *Hub, rs *roomState, channel string) {
	o.hub, o.room, o.channel = h, rs, channel
	o.queue.Sender, o.queue.Limit = o, maxFrame
	o.stream, o.next = h.numbers.take(channel)
}

// what says for errors where the way leads.
func (o *outbound) what() string {
	switch {
	case o.room == nil:
		return "members of hub " + o.to
	case o.room == o.hub.everyone:
		return "everyone"
	}
	return fmt.Sprintf("room %q", o.room.name)
}

// publish sends a message and returns when the backend has taken it.
func (o *outbound) publish(ctx context.Context, m *wire.Message) error {
	switch {
	case ctx.Err() != nil:
		return o.wrap(fmt.Errorf("%w: %w", context.Cause(ctx), ErrUnsent))
	case o.room != nil && o.room.invalid != nil:
		return o.wrap(fmt.Errorf("%w: %w", o.room.invalid.error, ErrUnsent))
	}
	if o.hub.alone && o.room != nil && o.room.kept == nil {
		o.deliver(m)
		return nil
	}
	sent, err := o.queue.Do(ctx, m, m.Size())
	if err != nil && !sent {
		err = fmt.Errorf("%w: %w", err, ErrUnsent)
		if o.hub.opts.LocalFallback && o.room != nil && o.hub.ctx.Err() == nil {
			o.room.deliver(o.hub.entryOf(m))
			err = fmt.Errorf("%w: %w", ErrLocalOnly, err)
		}
	}
	return o.wrap(err)
}

// deliver is publish for a hub that is alone: there is nobody to make frames for.
func (o *outbound) deliver(m *wire.Message) {
	h := o.hub
	h.stats.published.Add(1)
	h.stats.frames.Add(1)
	h.stats.received.Add(1)
	o.room.deliver(h.entryOf(m))
}

// entryOf returns a message of the hub's own for a log.
func (h *Hub) entryOf(m *wire.Message) entry {
	return entry{data: append([]byte{}, m.Data...), sender: h.id, volatile: m.Volatile, filter: h.filterFor(h.num, m)}
}

func (o *outbound) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fanout: publish to %s: %w", o.what(), err)
}

// Go implements coalesce.Sender. It is called by a publish in flight, so the
// hub still waits for its goroutines. The callers of what f sends may all leave
// before it is sent: the channel, with its numbers, must stay until then.
func (o *outbound) Go(f func()) {
	o.hold()
	o.hub.wg.Go(func() {
		defer o.unhold()
		f()
	})
}

// Keep implements coalesce.Sender. A caller whose context can end may leave before
// its message is encoded, and do with the data what it likes.
func (o *outbound) Keep(ctx context.Context, m *wire.Message) *wire.Message {
	if ctx.Done() == nil {
		return m
	}
	kept := *m
	kept.Data = slices.Clone(m.Data)
	return &kept
}

// hold keeps the channel from being forgotten until unhold.
func (o *outbound) hold() {
	if o.room != nil {
		o.room.mu.Lock()
		o.room.uses++
		o.room.mu.Unlock()
		return
	}
	o.hub.outMu.Lock()
	o.uses++
	o.hub.outMu.Unlock()
}

func (o *outbound) unhold() {
	if o.room != nil {
		o.hub.release(o.room)
		return
	}
	o.hub.outMu.Lock()
	o.uses--
	o.used = time.Now()
	o.hub.outMu.Unlock()
}

// Send implements coalesce.Sender: it sends a batch as one frame.
func (o *outbound) Send(ctx context.Context, batch []*wire.Message) error {
	h := o.hub
	if o.stream == 0 {
		o.stream, o.next = h.lastStream.Add(1), 1
	}
	head := wire.Header{Hub: h.num, Stream: o.stream, Seq: o.next, Count: len(batch), Time: now()}
	frame := encode(&head, batch)
	receivers, unsent, err := o.transmit(ctx, &head, frame)
	if err == nil {
		o.next += uint64(len(batch))
		h.stats.published.Add(uint64(len(batch)))
		h.stats.frames.Add(1)
		if receivers == 0 && o.room == nil {
			return ErrNoReceiver
		}
		return nil
	}
	if h.opts.LocalFallback && o.room != nil && h.ctx.Err() == nil {
		o.room.deliverFrame(frame)
		unsent = false // these numbers have been seen
		err = fmt.Errorf("%w: %w", ErrLocalOnly, err)
	}
	// Numbers that nobody can have seen are used again. Others are burnt: if
	// the frame did not arrive, receivers report it missing.
	if !unsent {
		o.next += uint64(len(batch))
	}
	return err
}

func now() uint64 { return uint64(time.Now().UnixMilli()) }

func encode(head *wire.Header, batch []*wire.Message) []byte {
	size := wire.Overhead
	for _, m := range batch {
		size += m.Size()
	}
	frame := wire.AppendHeader(make([]byte, 0, size), head)
	for _, m := range batch {
		frame = wire.AppendMessage(frame, m)
	}
	return frame
}

// transmit publishes a frame until the backend takes it, ctx ends, or trying
// again is of no use. unsent reports whether no attempt can have arrived.
func (o *outbound) transmit(ctx context.Context, head *wire.Header, frame []byte) (receivers int, unsent bool, err error) {
	h := o.hub
	if _, ok := ctx.Deadline(); !ok && !h.alone {
		var done func()
		ctx, done = h.publishes.Bound(ctx)
		defer done()
	}
	unsent = true
	delay := firstRetry
	for {
		if h.ctx.Err() != nil {
			return 0, unsent, errors.Join(ErrClosed, err)
		}
		var failed error
		receivers, failed = o.attempt(ctx, head, frame)
		if failed == nil {
			return receivers, false, nil
		}
		unsent = unsent && errors.Is(failed, ErrUnsent)
		// The error of ctx says less than the one before it, which it cut off.
		if err == nil || ctx.Err() == nil {
			err = failed
		}
		if errors.Is(failed, ErrClosed) || errors.Is(failed, ErrRefused) {
			return 0, unsent, err
		}
		sleep(ctx, delay/2+rand.N(delay/2))
		delay = min(2*delay, lastRetry)
		if ctx.Err() != nil {
			return 0, unsent, o.gaveUp(ctx, unsent, err)
		}
		frame = wire.Again(frame, !unsent, now())
	}
}

// attempt sends a frame once, into the room's history if it keeps one.
func (o *outbound) attempt(ctx context.Context, head *wire.Header, frame []byte) (receivers int, err error) {
	if o.room == nil || o.room.kept == nil {
		return o.hub.adapter.Publish(ctx, o.channel, frame)
	}
	_, receivers, err = o.hub.historian.Append(ctx, o.channel, Record{
		Frame: frame, Messages: head.Count, Time: time.Now(), Keep: o.room.kept.keep,
		Publisher: o.hub.id, Stream: head.Stream, Seq: head.Seq,
	})
	return receivers, err
}

func (o *outbound) gaveUp(ctx context.Context, unsent bool, last error) error {
	err := context.Cause(ctx)
	if !errors.Is(last, err) {
		err = fmt.Errorf("%w (last: %w)", err, last)
	}
	if unsent && !errors.Is(err, ErrUnsent) {
		err = fmt.Errorf("%w: %w", err, ErrUnsent)
	}
	return err
}
