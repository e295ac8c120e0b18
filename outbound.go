package fanout

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
)

// maxFrame bounds the messages of a frame, in bytes. A larger message goes alone.
// It is large enough for a hundred chat messages at once: a single room says no more
// in a round trip to the backend. (Half of it let one room say 1.7 million short
// messages a second, this 2.5.) And it is small enough that one held message does not
// hold much of others.
const maxFrame = 64 << 10

// An outbound is the way out to one channel. While one of its frames is under way
// what is published gathers, and goes together when that has arrived. There is no
// timer: an idle channel adds no latency, and under load the frames are as large
// as the backend is slow. Group commit of databases works the same way.
//
// Its methods may be called by anyone, but for those that say whose they are: one
// frame at a time is under way, and busy is the right to send it.
type outbound struct {
	hub  *Hub
	room *roomState // nil for an inbox

	// Of who is busy.
	stream, next uint64  // the numbers
	flight       *parcel // under way without a goroutine that waits

	mu      sync.Mutex // guards the next three
	busy    bool
	pending []*parcel // the last may still grow
	usual   int       // bytes of messages of the last frame that had gathered

	channel string
	to      string // of an inbox: the hub's ID

	// Of inboxes, guarded by Hub.outMu.
	uses int
	used time.Time
}

func (o *outbound) init(h *Hub, rs *roomState, channel string) {
	o.hub, o.room, o.channel = h, rs, channel
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

func (o *outbound) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fanout: publish to %s: %w", o.what(), err)
}

// check says what keeps everything from being published.
func (o *outbound) check(ctx context.Context) error {
	if ctx.Err() == nil && (o.room == nil || o.room.invalid == nil) {
		return nil
	}
	return o.refusal(ctx)
}

func (o *outbound) refusal(ctx context.Context) error {
	err := context.Cause(ctx)
	if err == nil {
		err = o.room.invalid.error
	}
	return o.wrap(fmt.Errorf("%w: %w", err, ErrUnsent))
}

// loops reports whether what is published is delivered at once, and to nobody
// else: there is nobody to make frames for.
func (o *outbound) loops() bool { return o.hub.alone && o.room != nil && o.room.kept == nil }

// keeps reports whether what is published goes into a history.
func (o *outbound) keeps() bool { return o.room != nil && o.room.kept != nil }

// publish sends a message and returns when the backend has taken it.
//
// Its callers may be goroutines that begin with a small stack, which costs more to
// grow than all that is done here. So each way has a function of its own, with what
// it needs, and what is unusual has another. (-run 'half load' of internal/bench's
// redis suite publishes in such goroutines.)
func (o *outbound) publish(ctx context.Context, m *wire.Message) error {
	if err := o.check(ctx); err != nil {
		return err
	}
	if o.loops() {
		o.deliver(m)
		return nil
	}
	size := m.Size()
	o.mu.Lock()
	if o.busy {
		return o.join(ctx, m, size)
	}
	o.busy = true
	o.mu.Unlock()
	return o.publishAlone(ctx, m, size)
}

// publishAlone sends a message of so many bytes by itself, and waits until it has
// arrived. It is called by who is busy, who is not any more.
func (o *outbound) publishAlone(ctx context.Context, m *wire.Message, size int) error {
	p := newParcel(size)
	p.add(m)
	o.seal(p)
	return o.wrap(o.send(ctx, p))
}

// send sends a parcel that is sealed, waits, and goes on with what has gathered
// meanwhile.
func (o *outbound) send(ctx context.Context, p *parcel) (err error) {
	end := outcome{err: errPanic}
	defer o.goOn(false)                       // also then: others must not wait for ever
	defer func() { err = o.settle(p, end) }() // and the numbers may have been seen
	end = o.transmit(ctx, p, nil)
	return nil
}

// join has a message of so many bytes sent with others, and waits until they have
// arrived. If ctx ends first and the message is not under way by then, it is
// withdrawn: nobody will get it. o.mu is held, and released.
func (o *outbound) join(ctx context.Context, m *wire.Message, size int) error {
	p := o.gather(size)
	at := p.add(m)
	p.waiting++
	if p.done == nil {
		p.done = make(chan struct{})
	}
	done := p.done
	o.mu.Unlock()
	var bound context.Context = context.Background()
	if _, ok := ctx.Deadline(); !ok {
		bound = o.hub.publishes.Context()
	}
	select {
	case <-done:
		return o.wrap(p.err)
	case <-ctx.Done():
		return o.quit(o.hub.withHealth(context.Cause(ctx)), m, p, at)
	case <-bound.Done():
		return o.quit(o.hub.withHealth(context.Cause(bound)), m, p, at)
	}
}

// quit takes a publisher whose context has ended, with err, out of a parcel.
func (o *outbound) quit(err error, m *wire.Message, p *parcel, at span) error {
	if !o.leave(p, at) {
		err = fmt.Errorf("%w: %w", err, ErrUnsent)
		if o.hub.opts.LocalFallback && o.room != nil && o.hub.ctx.Err() == nil {
			o.room.deliver(o.hub.entryOf(m))
			err = fmt.Errorf("%w: %w", ErrLocalOnly, sent(err))
		}
	}
	return o.wrap(err)
}

// publishAsync sends a message, and has a told when the backend has taken it. The
// caller holds the channel; that is released then.
func (o *outbound) publishAsync(m *wire.Message, a ack) {
	if err := o.check(context.Background()); err != nil || o.loops() {
		if err == nil {
			o.deliver(m)
		}
		o.hub.acks.tell([]ack{a}, err)
		o.unhold(1)
		return
	}
	size := m.Size()
	o.mu.Lock()
	if o.busy {
		o.gather(size).addAsync(m, a, o.hub.opts.PublishTimeout)
		o.mu.Unlock()
		return
	}
	o.busy = true
	o.mu.Unlock()
	p := newParcel(size)
	p.addAsync(m, a, o.hub.opts.PublishTimeout)
	o.start(p)
}

// gather returns the parcel that a message of so many bytes joins. o.mu is held.
func (o *outbound) gather(size int) *parcel {
	if n := len(o.pending); n > 0 && o.pending[n-1].fits(size) {
		return o.pending[n-1]
	}
	p := newParcel(max(size, o.usual))
	o.pending = append(o.pending, p)
	return p
}

// leave takes a publisher whose context has ended out of a parcel. What nobody
// waits for any more is given up by the last who leaves.
func (o *outbound) leave(p *parcel, at span) (sent bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p.waiting--
	if !p.begun {
		p.withdraw(at)
		return false
	}
	if p.abandoned() && p.cancel != nil {
		p.cancel()
	}
	return true
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

// unhold ends so many holds.
func (o *outbound) unhold(n int) {
	if o.room != nil {
		o.hub.releaseAll(o.room, n)
		return
	}
	o.hub.outMu.Lock()
	o.uses -= n
	o.used = time.Now()
	o.hub.outMu.Unlock()
}

// deliver is publish for a hub that is alone.
func (o *outbound) deliver(m *wire.Message) {
	h := o.hub
	h.stats.published.Add(1)
	h.stats.frames.Add(1)
	h.stats.received.Add(1)
	o.room.deliver(h.entryOf(m))
}

// entryOf returns a message of the hub's own for a log.
func (h *Hub) entryOf(m *wire.Message) entry {
	v := m.View()
	return entry{data: clonePayload(m.Data), sender: h.id, volatile: m.Volatile, filter: h.filterFor(&v)}
}
