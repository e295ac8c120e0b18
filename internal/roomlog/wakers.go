package roomlog

import (
	"sync"

	"github.com/fanoutgo/fanout/internal/locks"
)

// wakeShare is the number of cursors that a waker takes at a time.
const wakeShare = 64

// Wakers wake crowds of parked cursors, on goroutines of their own. Meanwhile
// more may be appended, and a cursor's owner that is woken finds all of it: in
// a burst no owner is woken twice. The zero value is ready for Start.
type Wakers[T Item, O Owner] struct {
	mu      locks.Mutex[locks.Innermost] // guards all below
	work    sync.Cond
	queue   []Wakeups[T, O]
	stopped bool
}

// Start starts n goroutines, by spawn, whose caller waits for them. It is
// called once, before all else.
func (w *Wakers[T, O]) Start(n int, spawn func(func())) {
	w.work.L = &w.mu
	for range n {
		spawn(w.run)
	}
}

// Stop ends the goroutines. Cursors that are not woken by then never are.
func (w *Wakers[T, O]) Stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.work.Broadcast()
}

// Add makes the wakers wake cursors. It does not wait.
func (w *Wakers[T, O]) Add(crowd Wakeups[T, O]) {
	w.mu.Lock()
	w.queue = append(w.queue, crowd)
	w.mu.Unlock()
	w.work.Signal()
}

func (w *Wakers[T, O]) run() {
	for {
		share, more, ok := w.next()
		if !ok {
			return
		}
		if more {
			w.work.Signal() // another may help
		}
		share.Wake(wakeShare)
	}
}

// next waits for work, and takes a share of it. It is not ok after Stop.
func (w *Wakers[T, O]) next() (share Wakeups[T, O], more, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) == 0 && !w.stopped {
		w.work.Wait()
	}
	if w.stopped {
		return share, false, false
	}
	share, w.queue[0] = w.queue[0].Split(wakeShare)
	if w.queue[0].None() {
		w.queue = w.queue[1:]
	}
	more = len(w.queue) > 0
	if !more {
		w.queue = nil
	}
	return share, more, true
}
