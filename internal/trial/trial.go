// Package trial keeps the outcome of something that is tried until it succeeds,
// for callers that wait for that or want to know why it has not succeeded yet.
//
//	            Fail(err)               Succeed
//	under way ────────────▶ failed ────────────▶ succeeded
//	    ▲                     │                     for good
//	    └──────── Retry ──────┘
package trial

import (
	"context"
	"time"

	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/locks"
)

// A Trial is made by New. Its methods may be called concurrently.
type Trial struct {
	done chan struct{} // closed by Succeed

	mu      locks.Mutex[locks.Innermost] // guards all below
	err     error                        // of the last attempt; nil: it is under way, or has succeeded
	changed chan struct{}                // closed when err changes, or by Succeed
}

// New returns a trial that is under way.
func New() *Trial { return &Trial{done: make(chan struct{}), changed: make(chan struct{})} }

// Done returns a channel that is closed once an attempt has succeeded.
func (t *Trial) Done() <-chan struct{} { return t.done }

// Succeeded reports whether an attempt has succeeded.
func (t *Trial) Succeeded() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// Last returns the error of the last attempt, and a channel that is closed when
// there is news.
func (t *Trial) Last() (changed <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed, t.err
}

// Fail notes that an attempt has failed.
func (t *Trial) Fail(err error) { t.set(err, false) }

// Retry notes that an attempt is under way.
func (t *Trial) Retry() { t.set(nil, false) }

// Succeed notes that an attempt has succeeded. Later calls of any method change
// nothing.
func (t *Trial) Succeed() { t.set(nil, true) }

func (t *Trial) set(err error, succeeded bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Succeeded() {
		return
	}
	t.err = err
	close(t.changed)
	if succeeded {
		close(t.done) // and changed stays closed
		return
	}
	t.changed = make(chan struct{})
}

const (
	// lastPause is the longest pause between the attempts of Keep.
	lastPause = 500 * time.Millisecond
	// failureAge is how long Last still returns the error of an attempt of Keep
	// while the next attempt waits.
	failureAge = time.Second
)

// Keep makes attempts until one succeeds or ctx ends. After one that has failed
// it calls failed, which reports whether to continue.
func (t *Trial) Keep(ctx context.Context, attempt func() error, failed func(error) (goOn bool)) {
	for pause := backoff.First; ; pause = min(2*pause, lastPause) {
		outdated := time.AfterFunc(failureAge, t.Retry)
		err := attempt()
		outdated.Stop()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			t.Succeed()
			return
		}
		t.Fail(err)
		if !failed(err) {
			return
		}
		backoff.Sleep(ctx, pause)
	}
}
