package journal

import (
	"sync/atomic"
	"time"
)

// OncePerMinute limits lines of one kind that could fill the log: a line is due
// if none was in the last minute. The zero value is ready for use. It may be
// used concurrently.
type OncePerMinute struct {
	last atomic.Int64 // when a line was due last, in nanoseconds since began; 0: never
}

var began = time.Now()

// Due reports whether a line is to be written now.
func (o *OncePerMinute) Due() bool {
	last, now := o.last.Load(), int64(time.Since(began))|1
	return (last == 0 || time.Duration(now-last) >= time.Minute) && o.last.CompareAndSwap(last, now)
}
