package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/wire"
)

// Publishing again waits from firstRetry on, doubling up to lastRetry, each time
// between half of that and all of it.
const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = 500 * time.Millisecond
)

// transmit publishes a frame until the backend takes it, ctx ends, or trying again
// is of no use. failed is the error of a first attempt, if there was one.
func (o *outbound) transmit(ctx context.Context, p *parcel, failed error) outcome {
	h := o.hub
	if _, ok := ctx.Deadline(); !ok && !h.alone {
		var hold deadline.Hold
		ctx, hold = h.publishes.Bound(ctx)
		defer hold.Release()
	}
	if failed == nil {
		if h.ctx.Err() != nil {
			return outcome{unsent: true, err: mark(ErrClosed, true)}
		}
		var receivers int
		if receivers, failed = o.attempt(ctx, p, p.frame); failed == nil {
			return outcome{receivers: receivers}
		}
	}
	return o.retry(ctx, p, failed)
}

// retry is transmit after an attempt that has failed.
func (o *outbound) retry(ctx context.Context, p *parcel, failed error) outcome {
	h := o.hub
	unsent := true
	frame := p.frame // p keeps the first: others know that by its form
	var err error
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		unsent = unsent && errors.Is(failed, ErrUnsent)
		// The error of ctx says less than the one before it, which it cut off.
		if err == nil || ctx.Err() == nil {
			err = failed
		}
		if errors.Is(failed, ErrClosed) || errors.Is(failed, ErrRefused) {
			return outcome{unsent: unsent, err: mark(err, unsent)}
		}
		sleep(ctx, delay/2+rand.N(delay/2))
		if ctx.Err() != nil {
			return outcome{unsent: unsent, err: h.gaveUp(ctx, unsent, err)}
		}
		if h.ctx.Err() != nil {
			return outcome{unsent: unsent, err: mark(errors.Join(ErrClosed, err), unsent)}
		}
		frame = wire.Again(frame, !unsent, millis(time.Now()))
		var receivers int
		if receivers, failed = o.attempt(ctx, p, frame); failed == nil {
			return outcome{receivers: receivers}
		}
	}
}

// attempt sends a frame once, into the room's history if it keeps one.
func (o *outbound) attempt(ctx context.Context, p *parcel, frame []byte) (receivers int, err error) {
	if o.keeps() {
		return o.appendTo(ctx, p, frame)
	}
	return o.hub.adapter.Publish(ctx, o.channel, frame)
}

// appendTo sends a frame once into the room's history.
func (o *outbound) appendTo(ctx context.Context, p *parcel, frame []byte) (receivers int, err error) {
	_, receivers, err = o.hub.historian.Append(ctx, o.channel, Record{
		Frame: frame, Messages: p.count, Time: time.Now(), Keep: o.room.kept.keep,
		Publisher: o.hub.id, Stream: p.head.Stream, Seq: p.head.Seq,
	})
	return receivers, err
}

func (h *Hub) gaveUp(ctx context.Context, unsent bool, last error) error {
	err := context.Cause(ctx)
	if errors.Is(last, err) {
		err = last // which says more
	} else {
		err = fmt.Errorf("%w (last: %w)", err, last)
	}
	return mark(h.withHealth(err), unsent)
}

// mark has an error say that nothing was sent, if that is so. If it is not, the
// error of a later attempt must not say it either.
func mark(err error, unsent bool) error {
	switch says := errors.Is(err, ErrUnsent); {
	case unsent && !says:
		return fmt.Errorf("%w: %w", err, ErrUnsent)
	case says && !unsent:
		return fmt.Errorf("an earlier attempt may have arrived; the last: %w", sent(err))
	}
	return err
}
