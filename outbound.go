package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/unsent"
	"github.com/fanoutgo/fanout/internal/wire"
)

// An outbound publishes to one channel: it drives an outbox, whose lock it is.
// Its methods may be called by anyone, but for those that say that their caller
// holds the turn (see package outbox).
type outbound struct {
	hub  *Hub
	room *room // nil for an inbox

	sending *frame // under way without a goroutine that waits. Of the turn holder

	mu  locks.Mutex[locks.Innermost] // guards box, but for what is the turn holder's
	box outbox.Outbox[waiters]

	channel string
	to      string // of an inbox: the hub's ID

	// Of inboxes, guarded by Hub.outMu.
	uses int
	used time.Time
}

// A frame is messages that travel together, and the publishers that wait for
// them.
type frame = outbox.Frame[waiters]

func (o *outbound) init(h *Hub, r *room, channel string) {
	o.hub, o.room, o.channel = h, r, channel
	o.box.Restore(h.takeNumbers(channel))
}

// wrap says for whom a message could not be published.
func (o *outbound) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case o.room != nil && o.room.name == "": // of a user, or of everyone
		user, _ := o.hub.names.UserOf(o.channel)
		return &PublishError{User: user, Err: err}
	case o.room != nil:
		return &PublishError{Room: o.room.name, Err: err}
	}
	return &PublishError{Hub: o.to, Err: err}
}

// keeps reports whether what is published goes into a history.
func (o *outbound) keeps() bool { return o.room != nil && o.room.kept != nil }

// send sends a numbered frame, waits, and goes on with what has gathered
// meanwhile. The caller holds the turn and gives it up.
func (o *outbound) send(ctx context.Context, f *frame) (err error) {
	end := outcome{err: errPanic}
	defer o.next(false)                        // also then: others must not wait for ever
	defer func() { err = o.account(f, end) }() // and the numbers may have been seen
	end = o.transmit(ctx, f, nil)
	return nil
}

// next begins to send what has gathered, or gives up the turn, which the caller
// holds. On a goroutine of the adapter's (theirs) the adapter is not asked for
// its health.
func (o *outbound) next(theirs bool) {
	for {
		o.mu.Lock()
		f, expired := o.box.Next(time.Now())
		o.mu.Unlock()
		for _, old := range expired {
			o.number(old) // its numbers are used again, unless it is delivered here
			err := context.DeadlineExceeded
			if !theirs {
				err = o.hub.withHealth(err)
			}
			o.tell(old, o.account(old, outcome{unsent: true, err: unsent.Mark(err, true)}))
			o.unhold(len(old.Waiters.acks))
		}
		if f != nil {
			o.start(f)
			return
		}
		if len(expired) == 0 {
			return
		}
	}
}

// number gives a frame the channel's next numbers. The caller holds the turn.
func (o *outbound) number(f *frame) {
	o.box.Number(f, o.hub.num, o.hub.newStream, time.Now())
}

func (h *Hub) newStream() uint64 { return h.lastStream.Add(1) }

// start begins to send a frame, and returns. Its publishers may all leave
// before it has arrived: the channel, with its numbers, stays until then. The
// caller holds the turn and passes it on.
func (o *outbound) start(f *frame) {
	o.Hold()
	o.number(f)
	if (!o.keeps() || f.Notice()) && o.hub.async != nil && o.hand(f) {
		return
	}
	o.hub.wg.Go(func() { o.sendInBackground(f, nil) }) // a publish in flight: the hub still waits for its goroutines
}

// hand gives a frame to an adapter that does not wait, and reports whether it
// took it. One that panics may have.
func (o *outbound) hand(f *frame) (taken bool) {
	panics := true
	defer func() {
		if panics {
			o.sending = nil
			o.finish(f, o.account(f, outcome{err: errPanic}), true)
		} else if !taken {
			o.sending = nil
		}
	}()
	o.sending = f
	taken = o.hub.async.PublishAsync(o.channel, f.Bytes(), o)
	panics = false
	return taken
}

var errPanic = errors.New("the adapter panicked")

// Complete implements Completion: the frame under way has arrived, or not.
func (o *outbound) Complete(receivers int, err error) {
	f := o.sending
	o.sending = nil
	if err != nil {
		// The adapter is not closed before this returns, and the hub waits
		// after that.
		o.hub.wg.Go(func() { o.sendInBackground(f, err) })
		return
	}
	o.finish(f, o.account(f, outcome{receivers: receivers}), true)
}

// sendInBackground sends a frame, waits, and finishes it, in a goroutine of the
// hub's. failed is the error of a first attempt, if there was one. The caller
// holds the turn and passes it on.
func (o *outbound) sendInBackground(f *frame, failed error) {
	ends := f.Ends()
	if ends.IsZero() {
		ends = f.Numbered().Add(o.hub.opts.PublishTimeout)
	}
	ctx, cancel := context.WithDeadline(o.hub.ctx, ends)
	defer cancel()
	o.mu.Lock()
	f.Waiters.cancel = cancel
	if o.abandoned(f) {
		cancel()
	}
	o.mu.Unlock()
	o.finish(f, o.account(f, o.transmit(ctx, f, failed)), false)
}

// finish tells the publishers of a frame what became of it, and goes on: on a
// goroutine of the adapter's (theirs), or of the hub's. The caller holds the
// turn.
func (o *outbound) finish(f *frame, err error, theirs bool) {
	o.tell(f, err)
	o.next(theirs)
	o.unhold(1 + len(f.Waiters.acks))
}

// tell tells the publishers of a frame what became of it.
func (o *outbound) tell(f *frame, err error) {
	f.Forget() // its acks may wait for long
	w := &f.Waiters
	if w.done != nil {
		w.err = err
		close(w.done)
	}
	if len(w.acks) > 0 {
		o.hub.publishers.Tell(w.acks, o.wrap(err))
	}
}

// An outcome is what became of a frame.
type outcome struct {
	receivers int
	unsent    bool // after an error: no attempt can have arrived
	err       error
}

// account counts a frame that has arrived, or not, and returns the error for
// its publishers. The caller holds the turn.
func (o *outbound) account(f *frame, end outcome) error {
	h := o.hub
	if f.Notice() {
		f.Waiters.receivers = end.receivers
		return end.err
	}
	if end.err == nil {
		o.box.Done(f, outbox.Taken)
		h.stats.published.Add(uint64(f.Count()))
		h.stats.frames.Add(1)
		if end.receivers == 0 && o.room == nil {
			return ErrNoReceiver
		}
		return nil
	}
	result := outbox.Uncertain
	if end.unsent {
		result = outbox.Unsent
	}
	if h.opts.LocalFallback && o.room != nil && h.ctx.Err() == nil {
		o.room.deliverFrame(f.Bytes())
		result = outbox.Uncertain // these numbers have been seen
		end.err = fmt.Errorf("%w: %w", ErrLocalOnly, unsent.Hide(end.err))
	}
	o.box.Done(f, result)
	return end.err
}

// deliverFrame gives the members of this hub a frame of its own that could not
// be published. If it comes back after all it is known by its numbers.
func (r *room) deliverFrame(frame []byte) {
	var b batch.Batch
	if err := b.Open(frame); err != nil {
		return // cannot be: the hub has just encoded it
	}
	r.prepare()
	r.mu.Lock()
	var w wakeups
	if r.kept != nil {
		f := batch.WithoutPlace(&b, len(frame))
		a := r.kept.follower.Fallback(&f)
		w = r.put(&a, &f)
	} else {
		v := r.in.Accept(&b.Head)
		earlier, gap := r.gaps(&v)
		var u batch.Unpacker
		b.Unpack(&u, &r.hub.home, v.Skip, v.Sender)
		w = r.appendBatch(earlier, gap, &u, 0, 0)
	}
	r.mu.Unlock()
	w.run(r.hub)
}

// transmit publishes a frame until the backend takes it, ctx ends, or trying
// again is of no use. failed is the error of a first attempt, if there was one.
func (o *outbound) transmit(ctx context.Context, f *frame, failed error) outcome {
	h := o.hub
	if _, ok := ctx.Deadline(); !ok && !h.alone {
		var hold deadline.Hold
		ctx, hold = h.publishes.Bound(ctx)
		defer hold.Release()
	}
	if failed == nil {
		if h.ctx.Err() != nil {
			return outcome{unsent: true, err: unsent.Mark(ErrClosed, true)}
		}
		var receivers int
		if receivers, failed = o.attempt(ctx, f, f.Bytes()); failed == nil {
			return outcome{receivers: receivers}
		}
	}
	return o.retry(ctx, f, failed)
}

// retry is transmit after an attempt that has failed.
func (o *outbound) retry(ctx context.Context, f *frame, failed error) outcome {
	h := o.hub
	noneSent := true   // by any attempt
	frame := f.Bytes() // f keeps the first: others know that by its form
	var err error
	for pause := (backoff.Backoff{}); ; {
		noneSent = noneSent && errors.Is(failed, ErrUnsent)
		// The error of ctx says less than the one before it, which it cut off.
		if err == nil || ctx.Err() == nil {
			err = failed
		}
		if errors.Is(failed, ErrClosed) || errors.Is(failed, ErrRefused) {
			return outcome{unsent: noneSent, err: unsent.Mark(err, noneSent)}
		}
		if !pause.Wait(ctx) {
			return outcome{unsent: noneSent, err: h.gaveUp(ctx, noneSent, err)}
		}
		if h.ctx.Err() != nil {
			return outcome{unsent: noneSent, err: unsent.Mark(fmt.Errorf("%w (last: %w)", ErrClosed, unsent.Hide(err)), noneSent)}
		}
		if !f.Notice() {
			frame = wire.Again(frame, !noneSent, uint64(time.Now().UnixMilli()))
		}
		var receivers int
		if receivers, failed = o.attempt(ctx, f, frame); failed == nil {
			return outcome{receivers: receivers}
		}
	}
}

// attempt sends a frame once, into the room's history if it keeps one.
func (o *outbound) attempt(ctx context.Context, f *frame, bytes []byte) (receivers int, err error) {
	if o.keeps() && !f.Notice() {
		return o.appendTo(ctx, f, bytes)
	}
	return o.hub.adapter.Publish(ctx, o.channel, bytes)
}

// appendTo sends a frame once into the room's history.
func (o *outbound) appendTo(ctx context.Context, f *frame, bytes []byte) (receivers int, err error) {
	head := f.Header()
	_, receivers, err = o.hub.historian.Append(ctx, o.channel, adapter.Record{
		Frame: bytes, Messages: f.Count(), Time: time.Now(), Keep: o.room.kept.keep,
		Publisher: o.hub.id, Stream: head.Stream, Seq: head.Seq,
	})
	return receivers, err
}

// Hold implements notices.Outbox: it keeps the channel from being forgotten
// until unhold, or Release.
func (o *outbound) Hold() {
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

// Release implements notices.Outbox.
func (o *outbound) Release() { o.unhold(1) }

// unhold ends n holds.
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

// outboxTo returns the outbox of the inbox of a hub, which stays until unhold.
func (h *Hub) outboxTo(hub string) *outbound {
	h.outMu.Lock()
	defer h.outMu.Unlock()
	o := h.outboxes[hub]
	if o == nil {
		o = new(outbound)
		o.init(h, nil, h.names.Inbox(hub))
		o.to = hub
		h.outboxes[hub] = o
		if len(h.outboxes) == 1 {
			defer h.janitor.wake()
		}
	}
	o.uses++
	return o
}
