package fanout

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/async"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/unsent"
	"github.com/fanoutgo/fanout/internal/wire"
)

// waiters are the publishers of a frame. outbound.mu guards count and cancel,
// and all of it until the frame has begun; the rest is the turn holder's then.
type waiters struct {
	count int           // of publishers that wait for done
	done  chan struct{} // closed when err is set; nil: nobody waits
	err   error
	acks  []async.Ack  // publishers that do not wait
	one   [1]async.Ack // room for the first of them

	receivers int // of a notice; see Adapter.Publish

	cancel context.CancelFunc // nil: what is under way is not to be ended
}

// abandoned reports whether nobody waits for the outcome of a frame.
func (o *outbound) abandoned(f *frame) bool {
	o.mu.AssertHeld()
	return f.Waiters.count == 0 && len(f.Waiters.acks) == 0
}

// check says what keeps everything from being published.
func (o *outbound) check(ctx context.Context) error {
	if ctx.Err() == nil && (o.room == nil || o.room.invalid() == nil) {
		return nil
	}
	return o.refusal(ctx)
}

func (o *outbound) refusal(ctx context.Context) error {
	err := context.Cause(ctx)
	if err == nil {
		err = o.room.invalid()
	}
	return o.wrap(adapter.Unsent(err))
}

// loops reports whether what is published is delivered at once, and to nobody
// else: there is nobody to make frames for.
func (o *outbound) loops() bool { return o.hub.alone && o.room != nil && o.room.kept == nil }

// publish sends a message and returns when the backend has taken it.
//
// Its callers may be goroutines that begin with a small stack, which costs more
// to grow than all that is done here. So each case has a function of its own,
// with what it needs, and what is unusual has another. (-run 'half load' of
// internal/bench's redis suite publishes in such goroutines.)
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
	if !o.box.Begin() {
		return o.join(ctx, m, size)
	}
	o.mu.Unlock()
	return o.publishAlone(ctx, m, size)
}

// publishAlone sends a message of size bytes by itself, and waits until it has
// arrived. The caller holds the turn and gives it up.
func (o *outbound) publishAlone(ctx context.Context, m *wire.Message, size int) error {
	f := outbox.NewFrame[waiters](size)
	f.Add(m)
	o.number(f)
	return o.wrap(o.send(ctx, f))
}

// join adds m, of size bytes, to the pending frame and waits until that frame
// has arrived. If ctx ends first and the frame is not under way by then, the
// message is withdrawn: nobody will get it. join releases o.mu.
func (o *outbound) join(ctx context.Context, m *wire.Message, size int) error {
	o.mu.AssertHeld()
	f := o.box.Gather(size)
	at := f.Add(m)
	w := &f.Waiters
	w.count++
	if w.done == nil {
		w.done = make(chan struct{})
	}
	done := w.done
	o.mu.Unlock()
	bound := context.Background()
	if _, ok := ctx.Deadline(); !ok {
		bound = o.hub.publishes.Context()
	}
	select {
	case <-done:
		return o.wrap(w.err)
	case <-ctx.Done():
		return o.quit(o.hub.withHealth(context.Cause(ctx)), m, f, at)
	case <-bound.Done():
		return o.quit(o.hub.withHealth(context.Cause(bound)), m, f, at)
	}
}

// quit takes a publisher whose context has ended, with err, out of a frame.
func (o *outbound) quit(err error, m *wire.Message, f *frame, at outbox.Span) error {
	if o.withdraw(f, at) {
		err = adapter.Unsent(err)
		if o.hub.opts.LocalFallback && o.room != nil && o.hub.ctx.Err() == nil {
			o.room.deliver(o.hub.entryOf(m))
			err = fmt.Errorf("%w: %w", ErrLocalOnly, unsent.Hide(err))
		}
	}
	return o.wrap(err)
}

// withdraw takes a publisher that waits out of a frame, and its message too if
// the frame is not under way. A frame under way that nobody waits for is given
// up.
func (o *outbound) withdraw(f *frame, at outbox.Span) (unsent bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := &f.Waiters
	w.count--
	if o.box.Withdraw(f, at) {
		return true
	}
	if o.abandoned(f) && w.cancel != nil {
		w.cancel()
	}
	return false
}

// Notify implements notices.Outbox: it sends a notice, which has no number, in
// its turn, and waits until the backend has taken it. It returns how many hubs that reached, -1 if the
// backend cannot tell. The notice goes into no history.
func (o *outbound) Notify(ctx context.Context, notice []byte) (receivers int, err error) {
	f := outbox.NewNotice[waiters](notice)
	w := &f.Waiters
	if err := o.check(ctx); err != nil {
		return 0, err
	}
	o.mu.Lock()
	if o.box.Begin() {
		o.mu.Unlock()
		o.number(f)
		err = o.send(ctx, f)
		return w.receivers, o.wrap(err)
	}
	w.count, w.done = 1, make(chan struct{})
	done := w.done
	o.box.Queue(f)
	o.mu.Unlock()
	select {
	case <-done:
		return w.receivers, o.wrap(w.err)
	case <-ctx.Done():
		o.withdraw(f, outbox.Span{})
		return 0, o.wrap(context.Cause(ctx))
	}
}

// publishAsync sends a message, and has a told when the backend has taken it.
// The caller holds the channel; that is released then.
func (o *outbound) publishAsync(m *wire.Message, a async.Ack) {
	if err := o.check(context.Background()); err != nil || o.loops() {
		if err == nil {
			o.deliver(m)
		}
		o.hub.publishers.Tell([]async.Ack{a}, err)
		o.unhold(1)
		return
	}
	size := m.Size()
	o.mu.Lock()
	if !o.box.Begin() {
		o.addAsync(o.box.Gather(size), m, a)
		o.mu.Unlock()
		return
	}
	o.mu.Unlock()
	f := outbox.NewFrame[waiters](size)
	o.addAsync(f, m, a)
	o.start(f)
}

// addAsync adds the message of a publisher that does not wait. The frame's time
// runs from the first of those.
func (o *outbound) addAsync(f *frame, m *wire.Message, a async.Ack) {
	f.Add(m)
	w := &f.Waiters
	if w.acks == nil {
		w.acks = w.one[:0]
		f.Expire(time.Now().Add(o.hub.opts.PublishTimeout))
	}
	w.acks = append(w.acks, a)
}

// Unkept has messages pass the history of a room by: members that are in the
// room get them, those that resume do not. It suits hints, such as that
// somebody is typing. In a room without a history it has no effect.
//
// Such a message has no place in the history and no number. So a member that
// misses one is not told, hubs that catch up with the history may deliver it
// before messages that were published earlier, and hubs of a release that does
// not know these messages ignore it. Options.LocalFallback does not deliver it.
func (s Selection) Unkept() Selection {
	s.unkept = true
	return s
}

// passesBy reports whether the messages of a selection are not to go into the
// history that a channel keeps.
func (s Selection) passesBy(o *outbound) bool { return s.unkept && o.keeps() }

// publishUnkept sends a message that goes into no history, and waits until the
// backend has taken it.
func (o *outbound) publishUnkept(ctx context.Context, m *wire.Message) error {
	ctx, release := o.hub.bound(ctx)
	defer release()
	_, err := o.Notify(ctx, o.unkeptFrame(m))
	if err == nil {
		o.hub.stats.published.Add(1)
		o.hub.stats.frames.Add(1)
	}
	return err
}

// publishUnkeptAsync is publishUnkept without waiting. The caller holds the
// channel; that is released when a is told.
func (o *outbound) publishUnkeptAsync(m *wire.Message, a async.Ack) {
	if err := o.check(context.Background()); err != nil {
		o.hub.publishers.Tell([]async.Ack{a}, err)
		o.unhold(1)
		return
	}
	f := outbox.NewNotice[waiters](o.unkeptFrame(m))
	f.Waiters.acks = append(f.Waiters.one[:0], a)
	f.Expire(time.Now().Add(o.hub.opts.PublishTimeout))
	o.mu.Lock()
	turn := o.box.Begin()
	if !turn {
		o.box.Queue(f)
	}
	o.mu.Unlock()
	if turn {
		o.start(f)
	}
}

// unkeptFrame returns the notice that carries a message. The message has an ID,
// by which members recognise it if it is sent again.
func (o *outbound) unkeptFrame(m *wire.Message) []byte {
	h := o.hub
	if m.ID == 0 {
		m.ID = h.lastCopyID.Add(1)
	}
	var box outbox.Outbox[struct{}]
	f := outbox.NewFrame[struct{}](m.Size())
	f.Add(m)
	now := time.Now()
	box.Number(f, h.num, h.newStream, now)
	return wire.AppendUnkept(nil, h.num, uint64(now.UnixMilli()), f.Bytes())
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
func (h *Hub) entryOf(m *wire.Message) item.Entry {
	v := m.View()
	filters := item.Maker{Home: &h.home}
	return item.Entry{Data: clonePayload(m.Data), Sender: h.id, Volatile: m.Volatile, Filter: filters.Make(h.num, &v)}
}

// clonePayload returns a copy of data as members get it: never nil, so that an
// empty message looks the same whichever way it came.
func clonePayload(data []byte) []byte { return append([]byte{}, data...) }

// checkSize refuses data that is too long for a message.
func (h *Hub) checkSize(data []byte) error {
	if limit := h.opts.MaxMessage; len(data) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed (Options.MaxMessage)", ErrTooLarge, len(data), limit)
	}
	return nil
}
