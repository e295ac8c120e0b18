package redispubsub

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// refusalStands is how long Health reports a refused history if no history is
// asked for again. Each further refusal extends that time.
const refusalStands = time.Minute

// refusals remembers whether the latest call for a history was refused, so that
// Health can report it. The zero value remembers nothing.
type refusals struct {
	last atomic.Pointer[refusal]
	lost atomic.Pointer[refusal] // why histories may have lost something
}

type refusal struct {
	err error
	at  time.Time
}

// note remembers the error of a call, if a server has answered with it.
func (r *refusals) note(err error) {
	if redisError(err) != nil || errors.Is(err, adapter.ErrRefused) {
		r.last.Store(&refusal{err, time.Now()})
	}
}

// clear notes that a call has succeeded.
func (r *refusals) clear() {
	if r.last.Load() != nil { // it is read by each call, and rarely written
		r.last.Store(nil)
	}
}

// noteLoss remembers that histories may have lost something.
func (r *refusals) noteLoss(err error) { r.lost.Store(&refusal{err, time.Now()}) }

// health returns an error if histories are refused, or may have lost something
// a moment ago.
func (r *refusals) health(name string) error {
	last := r.last.Load()
	if last == nil || time.Since(last.at) > refusalStands {
		if lost := r.lost.Load(); lost != nil && time.Since(lost.at) < refusalStands {
			return lost.err
		}
		return nil
	}
	return fmt.Errorf("%s: the latest call for a history failed, %v ago: %w", name, time.Since(last.at).Round(time.Millisecond), last.err)
}
