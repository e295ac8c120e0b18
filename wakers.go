package fanout

import (
	"runtime"
	"sync"

	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

const (
	// wakeSelf is the number of members that whoever delivers a message wakes
	// itself. Waking a goroutine costs some hundred nanoseconds: with more it
	// would keep the adapter's reader from the next frame.
	wakeSelf = 16
	// wakeShare is the number that a waker takes at a time.
	wakeShare = 64
)

// wakers wake the members of crowded rooms, a goroutine for each core. While
// they are at it more messages may come, and a member that is woken finds them
// all: in a burst nobody is woken twice.
type wakers struct {
	mu      locks.Mutex[locks.Innermost] // guards all below
	work    sync.Cond
	queue   []roomlog.Wakeups[entry, *membership]
	stopped bool
}

func (w *wakers) start(h *Hub) {
	w.work.L = &w.mu
	for range runtime.GOMAXPROCS(0) {
		h.wg.Go(w.run)
	}
}

func (w *wakers) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.work.Broadcast()
}

// add has cursors woken. It does not wait.
func (w *wakers) add(crowd roomlog.Wakeups[entry, *membership]) {
	w.mu.Lock()
	w.queue = append(w.queue, crowd)
	w.mu.Unlock()
	w.work.Signal()
}

func (w *wakers) run() {
	for {
		w.mu.Lock()
		for len(w.queue) == 0 && !w.stopped {
			w.work.Wait()
		}
		if w.stopped {
			w.mu.Unlock()
			return
		}
		share, rest := w.queue[0].Split(wakeShare)
		more := true
		if w.queue[0] = rest; rest.None() {
			w.queue = w.queue[1:]
			more = len(w.queue) > 0
		}
		if len(w.queue) == 0 {
			w.queue = nil
		}
		w.mu.Unlock()
		if more {
			w.work.Signal() // another may help
		}
		share.Wake(wakeShare)
	}
}
