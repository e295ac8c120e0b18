package main

import (
	"context"
	"sync"
	"time"
)

// Windows are the gathering windows of all pages: during a window, a page that
// was written to is not written to again. Windows end for all pages together,
// since waking all pages at once costs half as much as waking each by itself.
type windows struct {
	length time.Duration // 0: there are none

	mu      sync.Mutex    // guards all below
	over    chan struct{} // closed when the window ends; nil between windows
	stopped bool          // there are no more windows: over is closed for good
}

// current returns a channel that is closed when the current window ends. It
// begins a window if there is none.
func (w *windows) current() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over == nil {
		w.over = make(chan struct{})
		time.AfterFunc(w.length, w.end)
	}
	return w.over
}

func (w *windows) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		close(w.over)
		w.over = nil
	}
}

// stop ends the current window and lets none begin: what waits is written.
func (w *windows) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	w.stopped = true
	if w.over == nil {
		w.over = make(chan struct{})
	}
	close(w.over)
}

// gather waits for the end of the window, while more messages may arrive. When
// it begins to wait everything has been written, so the first message after a
// pause is not delayed.
func (c *socket) gather(ctx context.Context) {
	if c.server.windows.length == 0 {
		return
	}
	select {
	case <-c.server.windows.current():
	case <-c.member.Done():
	case <-ctx.Done():
	}
}
