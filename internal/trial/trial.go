// Package trial keeps the outcome of something that is tried until it succeeds,
// for callers that wait for that or want to know why it has not succeeded yet.
//
//	            Fail(err)               Succeed
//	under way ────────────▶ failed ────────────▶ succeeded
//	    ▲                     │                     for good
//	    └──────── Retry ──────┘
package trial

import "github.com/fanoutgo/fanout/internal/locks"

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
