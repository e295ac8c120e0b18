package main

import (
	"context"
	"sync"
	"time"
)

// Windows are the gathering windows of all pages: while one lasts, a page that
// was written to is not written to again. They end for all pages together, since
// to wake all at a time costs half as much as to wake each at its own.
type windows struct {
	length time.Duration // 0: there are none

	mu   sync.Mutex    // guards over
	over chan struct{} // closed when the window ends; nil between windows
}

// current returns what is closed when the current window ends. One begins when
// there is none.
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
	close(w.over)
	w.over = nil
}

// gather waits for the end of the window, in which there may come more to write.
// Nothing is left unwritten when it begins to wait, so the first message after a
// pause goes at once.
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
