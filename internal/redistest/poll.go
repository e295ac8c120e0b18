package redistest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// patience bounds waiting if the caller's context does not. Only a broken
	// machine or a wrong test takes that long.
	patience = 30 * time.Second

	// answerTime bounds one round of questions to a server, so that a paused
	// server cannot use up the time of the caller.
	answerTime = 2 * time.Second

	pollEvery = 20 * time.Millisecond
)

// within gives ctx a deadline if it has none.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// A final error is one that waiting does not cure.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// poll calls cond until it returns nil or a final error. If ctx ends first, the
// error contains the last one of cond.
func poll(ctx context.Context, what string, cond func(context.Context) error) error {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	begin := time.Now()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		try, done := context.WithTimeout(ctx, answerTime)
		err := cond(try)
		done()
		if err == nil {
			return nil
		}
		if f := (final{}); errors.As(err, &f) {
			return fmt.Errorf("%s: %w", what, f.error)
		}
		if ctx.Err() == nil || last == nil { // not the "deadline exceeded" of the last attempt
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w after %v: %w", what, context.Cause(ctx), time.Since(begin).Round(time.Millisecond), last)
		case <-tick.C:
		}
	}
}

// each calls f for all items concurrently and returns the first error in order.
func each[T any](items []T, f func(i int, item T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(i, item) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
