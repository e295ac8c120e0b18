package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
)

// A parcel's way, from when it is its turn: goOn, start, then Complete or carry,
// finish, and goOn with the next. Whoever runs one of these is busy.

// goOn begins to send what has gathered while something was sent, or makes the
// channel idle. It is called by who is busy, who is not any more. On a goroutine
// of the adapter's (theirs) the adapter is not asked for its health.
func (o *outbound) goOn(theirs bool) {
	for p := o.nextParcel(); p != nil; p = o.nextParcel() {
		if !p.expired() {
			o.start(p)
			return
		}
		o.seal(p) // its numbers are used again, unless it is delivered here
		err := context.DeadlineExceeded
		if !theirs {
			err = o.hub.withHealth(err)
		}
		o.tell(p, o.settle(p, outcome{unsent: true, err: mark(err, true)}))
		o.unhold(len(p.acks))
	}
}

func (o *outbound) nextParcel() *parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.pending) > 0 {
		p := o.pending[0]
		o.pending[0] = nil
		if o.pending = o.pending[1:]; len(o.pending) == 0 {
			o.pending = nil
		}
		if p.count > 0 { // else all have left
			p.close()
			p.begun = true
			o.usual = min(len(p.frame)-wire.Overhead, maxFrame)
			return p
		}
	}
	o.busy = false
	return nil
}

// start begins to send a parcel, and returns. Its publishers may all leave before
// it has arrived: the channel, with its numbers, stays until then.
func (o *outbound) start(p *parcel) {
	o.hold()
	o.seal(p)
	if !o.keeps() && o.hub.async != nil && o.hand(p) {
		return
	}
	o.hub.wg.Go(func() { o.carry(p, nil) }) // a publish in flight: the hub still waits for its goroutines
}

// hand gives a parcel to an adapter that does not wait, and reports whether it took
// it. One that panics may have.
func (o *outbound) hand(p *parcel) (taken bool) {
	panics := true
	defer func() {
		if panics {
			o.flight = nil
			o.finish(p, o.settle(p, outcome{err: errPanic}), true)
		} else if !taken {
			o.flight = nil
		}
	}()
	o.flight = p
	taken = o.hub.async.PublishAsync(o.channel, p.frame, o)
	panics = false
	return taken
}

var errPanic = errors.New("the adapter panicked")

// Complete implements Completion: the frame under way has arrived, or not.
func (o *outbound) Complete(receivers int, err error) {
	p := o.flight
	o.flight = nil
	if err != nil {
		// The adapter is not closed before this returns, and the hub waits after that.
		o.hub.wg.Go(func() { o.carry(p, err) })
		return
	}
	o.finish(p, o.settle(p, outcome{receivers: receivers}), true)
}

// carry sends a parcel and waits. failed is the error of a first attempt, if there
// was one.
func (o *outbound) carry(p *parcel, failed error) {
	ends := p.ends
	if ends.IsZero() {
		ends = p.at.Add(o.hub.opts.PublishTimeout)
	}
	ctx, cancel := context.WithDeadline(o.hub.ctx, ends)
	defer cancel()
	o.mu.Lock()
	p.cancel = cancel
	if p.abandoned() {
		cancel()
	}
	o.mu.Unlock()
	o.finish(p, o.settle(p, o.transmit(ctx, p, failed)), false)
}

// finish tells the publishers of a parcel what became of it, and goes on: on a
// goroutine of the adapter's (theirs), or of the hub's.
func (o *outbound) finish(p *parcel, err error, theirs bool) {
	o.tell(p, err)
	o.goOn(theirs)
	o.unhold(1 + len(p.acks))
}

// tell tells the publishers of a parcel what became of it.
func (o *outbound) tell(p *parcel, err error) {
	p.frame = nil // its acks may wait for long
	if p.done != nil {
		p.err = err
		close(p.done)
	}
	if len(p.acks) > 0 {
		o.hub.acks.tell(p.acks, o.wrap(err))
	}
}

// seal gives a parcel the next numbers. It is called by who is busy.
func (o *outbound) seal(p *parcel) {
	h := o.hub
	if o.stream == 0 {
		o.stream, o.next = h.lastStream.Add(1), 1
	}
	p.seal(wire.Header{Hub: h.num, Stream: o.stream, Seq: o.next, Count: p.count})
}

func millis(t time.Time) uint64 { return uint64(t.UnixMilli()) }

// An outcome is what became of a frame.
type outcome struct {
	receivers int
	unsent    bool // after an error: no attempt can have arrived
	err       error
}

// settle counts a parcel that has arrived, or not, and returns the error for its
// publishers. It is called by who is busy.
func (o *outbound) settle(p *parcel, end outcome) error {
	h := o.hub
	if end.err == nil {
		o.next += uint64(p.count)
		h.stats.published.Add(uint64(p.count))
		h.stats.frames.Add(1)
		if end.receivers == 0 && o.room == nil {
			return ErrNoReceiver
		}
		return nil
	}
	if h.opts.LocalFallback && o.room != nil && h.ctx.Err() == nil {
		o.room.deliverFrame(p.frame)
		end.unsent = false // these numbers have been seen
		end.err = fmt.Errorf("%w: %w", ErrLocalOnly, sent(end.err))
	}
	// Numbers that nobody can have seen are used again. Others are burnt: if
	// the frame did not arrive, receivers report it missing.
	if !end.unsent {
		o.next += uint64(p.count)
	}
	return end.err
}
