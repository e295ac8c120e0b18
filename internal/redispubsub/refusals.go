package redispubsub

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// refusalStands is how long Health tells of a history that a server refused, if
// none is asked again. A hub whose histories are used tells all the time.
const refusalStands = time.Minute

// refusals remember whether the latest question about a history was refused, so
// that Health can tell. The zero value remembers nothing.
type refusals struct{ last atomic.Pointer[refusal] }

type refusal struct {
	err error
	at  time.Time
}

// note notes how a call has ended that a server answered with an error.
func (r *refusals) note(err error) {
	if redisError(err) != nil || errors.Is(err, adapter.ErrRefused) {
		r.last.Store(&refusal{err, time.Now()})
	}
}

// clear notes that a call has succeeded.
func (r *refusals) clear() {
	if r.last.Load() != nil { // it is rarely written, and always read
		r.last.Store(nil)
	}
}

// health returns an error if histories are refused.
func (r *refusals) health(name string) error {
	last := r.last.Load()
	if last == nil || time.Since(last.at) > refusalStands {
		return nil
	}
	return fmt.Errorf("%s: the latest call for a history failed, %v ago: %w", name, time.Since(last.at).Round(time.Millisecond), last.err)
}
