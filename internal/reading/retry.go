package reading

import (
	"errors"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/history"
)

// errNoProgress means that a history announces more and gives nothing new.
var errNoProgress = errors.New("the history announces more, but gives nothing new")

// noProgressDelay is the least delay after a reading that brought no progress.
const noProgressDelay = 50 * time.Millisecond

// An outcome is what came of a reading.
type outcome uint8

const (
	// read: the page is there.
	read outcome = iota
	// failed: the backend was not reached, or did not do what was asked.
	// Another attempt may succeed.
	failed
	// stuck: the backend announces more messages and returns none. That may change
	// soon, or never.
	stuck
	// refused: another attempt would have the same result.
	refused
)

// judge returns the outcome of a reading of what comes after since. If it is
// stuck, the error is errNoProgress.
func judge(page *adapter.Page, since adapter.Position, err error) (outcome, error) {
	switch {
	case errors.Is(err, adapter.ErrRefused), errors.Is(err, adapter.ErrClosed):
		return refused, err
	case err != nil:
		return failed, err
	case !history.Progresses(page, since):
		return stuck, errNoProgress
	}
	return read, nil
}

// A retry is the delay before the next attempt; zero: the last one succeeded.
type retry time.Duration

// after returns the delay that follows an outcome.
func (r retry) after(o outcome) retry {
	switch {
	case o == read:
		return 0
	case r == 0:
		r = retry(backoff.First)
	default:
		r = min(2*r, retry(backoff.Max))
	}
	if o == stuck {
		r = max(r, retry(noProgressDelay))
	}
	return r
}

// hopeless reports whether the delay has grown as far as it can.
func (r retry) hopeless() bool { return r >= retry(backoff.Max) }
