package publishing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/unsent"
	"github.com/fanoutgo/fanout/internal/wire"
)

// transmit publishes a frame, again if that fails, until the backend takes it,
// ctx ends, or another attempt cannot succeed. The failed parameter is the
// error of a first attempt, if there was one.
func (c *Channel) transmit(ctx context.Context, f *frame, failed error) outcome {
	if _, ok := ctx.Deadline(); !ok && !c.env.Alone {
		var hold deadline.Hold
		ctx, hold = c.env.Bounds.Bound(ctx)
		defer hold.Release()
	}
	if failed == nil {
		if c.env.Context.Err() != nil {
			return outcome{unsent: true, err: unsent.Mark(adapter.ErrClosed, true)}
		}
		var receivers int
		if receivers, failed = c.attempt(ctx, f, f.Bytes()); failed == nil {
			return outcome{receivers: receivers}
		}
	}
	return c.retry(ctx, f, failed)
}

// retry is transmit after an attempt that has failed.
func (c *Channel) retry(ctx context.Context, f *frame, failed error) outcome {
	noneSent := true   // by any attempt
	frame := f.Bytes() // f keeps the original: for the members of this hub it is not a repeated frame
	var err error
	for pause := (backoff.Backoff{}); ; {
		noneSent = noneSent && errors.Is(failed, adapter.ErrUnsent)
		// The error of an attempt that ctx cut off says less than the one before.
		if err == nil || ctx.Err() == nil {
			err = failed
		}
		if errors.Is(failed, adapter.ErrClosed) || errors.Is(failed, adapter.ErrRefused) {
			return outcome{unsent: noneSent, err: unsent.Mark(err, noneSent)}
		}
		if !pause.Wait(ctx) {
			return outcome{unsent: noneSent, err: c.env.gaveUp(ctx, noneSent, err)}
		}
		if c.env.Context.Err() != nil {
			return outcome{unsent: noneSent, err: unsent.Mark(fmt.Errorf("%w (last: %w)", adapter.ErrClosed, unsent.Hide(err)), noneSent)}
		}
		if !f.Notice() {
			frame = wire.Again(frame, !noneSent, uint64(time.Now().UnixMilli()))
		}
		var receivers int
		if receivers, failed = c.attempt(ctx, f, frame); failed == nil {
			return outcome{receivers: receivers}
		}
	}
}

// gaveUp is the error of a publish whose context has ended, after an attempt
// that failed with last. The noneSent parameter reports that no attempt has
// sent anything.
func (e *Env) gaveUp(ctx context.Context, noneSent bool, last error) error {
	err := context.Cause(ctx)
	if errors.Is(last, err) {
		err = last // it says more
	} else {
		err = fmt.Errorf("%w (last: %w)", err, unsent.Hide(last))
	}
	return unsent.Mark(e.WithHealth(err), noneSent)
}

// attempt sends a frame once, into the channel's history if it keeps one.
func (c *Channel) attempt(ctx context.Context, f *frame, bytes []byte) (receivers int, err error) {
	if c.Keeps() && !f.Notice() {
		return c.appendTo(ctx, f, bytes)
	}
	return c.env.Adapter.Publish(ctx, c.name, bytes)
}

// appendTo sends a frame once into the channel's history.
func (c *Channel) appendTo(ctx context.Context, f *frame, bytes []byte) (receivers int, err error) {
	head := f.Header()
	_, receivers, err = c.env.Historian.Append(ctx, c.name, adapter.Record{
		Frame: bytes, Messages: f.Count(), Time: time.Now(), Keep: *c.keep,
		Publisher: c.env.Home.ID, Stream: head.Stream, Seq: head.Seq,
	})
	return receivers, err
}
