package fanout

import (
	"sync"
	"time"
)

// maxReaders bounds how many readings of histories a hub has under way: enough
// to have them travel together, few enough not to fill a server's memory with
// answers.
const maxReaders = 128

// readers run what asks the backend for history, a bounded number at a time, in
// the order of asking. A reader's goroutine ends when nothing is left to do.
type readers struct {
	hub *Hub

	mu      sync.Mutex // guards all below. Innermost
	queue   []func()
	running int
	stopped bool
}

// add has f run. It does not wait. A hub that has closed runs nothing.
func (r *readers) add(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return
	}
	r.queue = append(r.queue, f)
	if r.running < maxReaders {
		r.running++
		r.hub.wg.Go(r.run)
	}
}

// aside runs f, which waits, in a goroutine of its own. A hub that has closed runs
// nothing.
func (r *readers) aside(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stopped {
		r.hub.wg.Go(f)
	}
}

// later has f run after a while: what failed must not keep others waiting
// meanwhile.
func (r *readers) later(d time.Duration, f func()) { time.AfterFunc(d, func() { r.add(f) }) }

func (r *readers) run() {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 || r.stopped {
			r.queue = nil
			r.running--
			r.mu.Unlock()
			return
		}
		f := r.queue[0]
		r.queue[0] = nil
		r.queue = r.queue[1:]
		r.mu.Unlock()
		f()
	}
}

// stop lets nothing begin any more. The hub's context, which has ended, ends
// what is under way.
func (r *readers) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
}
