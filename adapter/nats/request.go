package nats

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
)

// answerWithin is how long the leader of a stream may take to answer. A stream
// without a leader, because it is new or has just lost its leader, does not
// answer at all, a server may not know yet of a stream that is new, and a
// cluster that was just started may not know enough servers. So requests that
// may be repeated are repeated.
const answerWithin = time.Second

// untilAnswered repeats a request until it is answered or ctx ends. That a
// server is not ready counts as an answer only when ctx has ended. A subject to
// which nobody listens is asked twice.
func untilAnswered(ctx context.Context, f func(context.Context) error) error {
	var said error // by a server that is not ready
	for attempt := 0; ; attempt++ {
		one, cancel := context.WithTimeout(ctx, answerWithin)
		err := f(one)
		cancel()
		if notReady(err) {
			said = err
		}
		if ctx.Err() == nil && mayPass(err, attempt) {
			if err = pause(ctx, attempt+5); err == nil {
				continue
			}
		}
		if said != nil && ctx.Err() != nil {
			return said // it says more than that the time is over
		}
		return err
	}
}

// mayPass reports whether the next attempt may be answered.
func mayPass(err error, attempt int) bool {
	if errors.Is(err, nats.ErrNoResponders) {
		return attempt == 0
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || notReady(err)
}

// notReady reports whether a server says that it, or its cluster, is not ready.
func notReady(err error) bool {
	code := apiCode(err)
	return code == codeStreamNotFound || code == codeNoPeers || code == codeUnavailable
}

// request is a request to a stream that may be repeated.
func (a *Adapter) request(ctx context.Context, nc *nats.Conn, subject string, data []byte) (m *nats.Msg, err error) {
	err = untilAnswered(ctx, func(ctx context.Context) error {
		m, err = nc.RequestWithContext(ctx, subject, data)
		return err
	})
	if err != nil {
		return nil, a.streamError(nc, err)
	}
	return m, nil
}

// pause waits a moment, longer after each attempt: up to 64 ms.
func pause(ctx context.Context, attempt int) error {
	limit := time.Millisecond << min(attempt, mostPause)
	t := time.NewTimer(rand.N(limit))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
