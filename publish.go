package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/callback"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/wire"
)

// An ack is a publisher that does not wait.
type ack struct {
	done  func(error) // nil: it does not want to know
	bytes int64       // that it has of the buffer
}

// messageCost is what a message that nobody waits for takes of the buffer,
// beside its data.
const messageCost = 256

// beginOne begins to publish a message of size bytes that nobody waits for. The
// operation that it begins is over when the ack is told.
func (h *Hub) beginOne(ctx context.Context, size int, done func(error)) (ack, error) {
	a := ack{done, int64(size + messageCost)}
	return a, h.reserve(ctx, 1, a.bytes)
}

// beginAsync is beginOne for n messages: done is called when all acks have been
// told.
func (h *Hub) beginAsync(ctx context.Context, n, size int, done func(error)) ([]ack, error) {
	if n > 1 && done != nil {
		done = jointly(n, done)
	}
	acks := slices.Repeat([]ack{{done, int64(size + messageCost)}}, n)
	if err := h.reserve(ctx, n, int64(n)*acks[0].bytes); err != nil {
		return nil, err
	}
	return acks, nil
}

// reserve takes room in the buffer and begins n operations.
func (h *Hub) reserve(ctx context.Context, n int, bytes int64) error {
	err := context.Cause(ctx)
	if err == nil && !h.buffer.TryTake(bytes) {
		err = h.awaitBuffer(ctx, bytes)
	}
	if err == nil {
		if err = h.begin(n); err != nil {
			h.buffer.Give(bytes)
		}
	}
	if err != nil {
		return adapter.Unsent(err)
	}
	return nil
}

// awaitBuffer waits for room in the buffer, as long as a publish may take.
func (h *Hub) awaitBuffer(ctx context.Context, bytes int64) error {
	if _, ok := ctx.Deadline(); !ok {
		var hold deadline.Hold
		ctx, hold = h.publishes.Bound(ctx)
		defer hold.Release()
	}
	err := h.buffer.Take(ctx, h.open, bytes)
	if err == nil {
		return nil
	}
	return h.explain(ctx, fmt.Errorf("waiting for space in Options.PublishBuffer: %w", err))
}

// jointly returns what is to be called n times, and calls done the last time.
// All are called by the hub's one goroutine for that.
func jointly(n int, done func(error)) func(error) {
	errs := make([]error, 0, n)
	return func(err error) {
		if errs = append(errs, err); len(errs) == n {
			done(joinErrors(errs))
		}
	}
}

// An ackQueue tells publishers that do not wait what became of their messages.
type ackQueue = callback.Queue[ack, error]

// tell has publishers told. For each an operation is in flight, which is over
// when it has been told.
func (h *Hub) tell(to []ack, err error) {
	var bytes int64
	for i := range to {
		bytes += to[i].bytes
	}
	h.buffer.Give(bytes) // now: a callback may publish
	h.acks.Add(to, err)
}

// callBack tells one publisher.
func (h *Hub) callBack(to ack, err error) {
	defer h.ops.Leave(1)
	if to.done != nil {
		to.done(err)
	}
}

// waiters are the publishers of a frame. outbound.mu guards count and cancel,
// and all of it until the frame has begun; the rest is the turn holder's then.
type waiters struct {
	count int           // of publishers that wait for done
	done  chan struct{} // closed when err is set; nil: nobody waits
	err   error
	acks  []ack  // publishers that do not wait
	one   [1]ack // room for the first of them

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
			err = fmt.Errorf("%w: %w", ErrLocalOnly, sent(err))
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
func (o *outbound) publishAsync(m *wire.Message, a ack) {
	if err := o.check(context.Background()); err != nil || o.loops() {
		if err == nil {
			o.deliver(m)
		}
		o.hub.tell([]ack{a}, err)
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
func (o *outbound) addAsync(f *frame, m *wire.Message, a ack) {
	f.Add(m)
	w := &f.Waiters
	if w.acks == nil {
		w.acks = w.one[:0]
		f.Expire(time.Now().Add(o.hub.opts.PublishTimeout))
	}
	w.acks = append(w.acks, a)
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

// joinErrors returns the errors of the parts of a message to several rooms or
// members. Only if no part was sent does it wrap ErrUnsent.
func joinErrors(errs []error) error {
	for _, err := range errs {
		if !errors.Is(err, ErrUnsent) {
			return errors.Join(withoutUnsent(errs)...)
		}
	}
	return errors.Join(errs...)
}

// withoutUnsent returns the errors such that none wraps ErrUnsent.
func withoutUnsent(errs []error) []error {
	masked := make([]error, len(errs))
	for i, err := range errs {
		masked[i] = sent(err)
	}
	return masked
}

// sent returns an error that does not wrap ErrUnsent, though err may: what err
// is about was not sent, but a part of the message, or a copy, was.
func sent(err error) error {
	if errors.Is(err, ErrUnsent) {
		return sentError{err}
	}
	return err
}

// A sentError is an error without ErrUnsent.
type sentError struct{ err error }

// Error leaves out the text of ErrUnsent, which would say the opposite.
func (e sentError) Error() string {
	text := e.err.Error()
	for _, unsent := range [...]string{" (%s)", "%s: ", ": %s"} { // the last two: of adapters that wrap it themselves
		text = strings.ReplaceAll(text, fmt.Sprintf(unsent, ErrUnsent), "")
	}
	return text
}

func (e sentError) Is(target error) bool { return target != ErrUnsent && errors.Is(e.err, target) }

func (e sentError) As(target any) bool { return errors.As(e.err, target) }

// checkSize refuses data that is too long for a message.
func (h *Hub) checkSize(data []byte) error {
	if limit := h.opts.MaxMessage; len(data) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed (Options.MaxMessage)", ErrTooLarge, len(data), limit)
	}
	return nil
}
