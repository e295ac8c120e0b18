package reading

import (
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/follow"
	"github.com/fanoutgo/fanout/internal/work"
)

// CatchUp makes the log catch up with the history: when the reading has ended,
// everything that has been published by now is in the log or is reported
// missing there.
func (h *History[H, W]) CatchUp() { h.Begin(h.Follower.Read()) }

// Begin begins a reading that the follower asks for.
func (h *History[H, W]) Begin(read follow.Read) {
	h.host.Mutex().AssertHeld()
	if !read.Due {
		return
	}
	generation := h.Follower.Generation()
	h.host.Reader().Pool.AddAfter(read.After, func(one *work.Task) { h.catchUp(one, generation, 0) })
}

// catchUp reads a page of what the log lacks, and asks for the next one, for
// when it is the room's turn again. It stops when the log lacks nothing or the
// room has been unsubscribed.
func (h *History[H, W]) catchUp(one *work.Task, generation int, delay retry) {
	reader, mu := h.host.Reader(), h.host.Mutex()
	mu.Lock()
	q, ok := h.Follower.Query(generation)
	mu.Unlock()
	if !ok {
		return
	}
	q.Keep, q.Time = h.Keep, time.Now()
	head := q.Limit == 0 // only the head of the history
	page, err := reader.page(one.Context(), h.host.Channel(), q)
	if reader.Context.Err() != nil {
		return
	}
	o, err := judge(&page, q.Since, err)
	if head && o == stuck {
		o, err = read, nil
	}
	delay = delay.after(o)
	if o == stuck {
		mu.Lock()
		wait, over := h.Follower.NoProgress(time.Now())
		mu.Unlock()
		if delay = retry(wait); over {
			o = refused
		}
	}
	switch {
	case o == refused:
		h.giveUp(generation, err)
	case o != read:
		h.catchUpAgain(one, time.Duration(delay), generation, delay)
	case head:
		h.open(generation, &page)
		h.goOn(one, generation)
	default:
		h.putPage(generation, &page)
		if page.More {
			reader.Pool.Add(func(one *work.Task) { h.catchUp(one, generation, 0) })
			return
		}
		h.goOn(one, generation)
	}
}

// catchUpAgain arranges for the history to be read again after a wait.
func (h *History[H, W]) catchUpAgain(one *work.Task, wait time.Duration, generation int, delay retry) {
	h.host.Reader().Pool.Again(one, wait, func(one *work.Task) { h.catchUp(one, generation, delay) })
}

// goOn drains the held frames, and arranges for the history to be read again if
// something is still missing.
func (h *History[H, W]) goOn(one *work.Task, generation int) {
	if again, wait := h.drain(generation); again {
		h.catchUpAgain(one, wait, generation, 0)
	}
}

// open notes the head of the history, where the log begins.
func (h *History[H, W]) open(generation int, page *adapter.Page) {
	mu := h.host.Mutex()
	mu.Lock()
	defer mu.Unlock()
	if h.Follower.Current(generation) {
		h.Store.Reset(h.Follower.Head(page))
	}
}

// putPage puts a page into the log as fast as it can. Members that keep up find
// it there, because the log holds more than its window meanwhile. Others fall
// out of the window, as they do when that many messages are published.
func (h *History[H, W]) putPage(generation int, page *adapter.Page) {
	p := follow.NewPage(page)
	for i, frame := range page.Frames {
		if !h.putFrame(generation, p, frame, i == 0) {
			return
		}
	}
	h.endPage(generation, p)
}

// putFrame puts a frame of a page into the log. It reports false if the room
// has been unsubscribed.
func (h *History[H, W]) putFrame(generation int, p *follow.Page, frame adapter.KeptFrame, first bool) bool {
	now, mu := time.Now(), h.host.Mutex()
	var b batch.KeptFrame
	_ = batch.OpenKept(&b, frame, clock.At(now)) // the follower reports one that cannot be read
	mu.Lock()
	if !h.Follower.Current(generation) {
		mu.Unlock()
		return false
	}
	if first {
		h.widen()
		h.host.WidenLog()
	}
	a := h.Follower.Frame(p, &b, now)
	w := h.host.Put(&a, &b)
	mu.Unlock()
	h.host.Wake(w)
	return true
}

// endPage puts into the log what a page says after its last frame.
func (h *History[H, W]) endPage(generation int, p *follow.Page) {
	mu := h.host.Mutex()
	mu.Lock()
	var w W
	if h.Follower.Current(generation) {
		h.host.CaughtUp()
		if a := h.Follower.PageEnd(p, time.Now()); !a.Gap.IsZero() {
			w = h.host.Put(&a, nil)
		}
	}
	mu.Unlock()
	h.host.Wake(w)
}

// drain puts the held frames into the log, a few at a time, and ends the
// reading if nothing is missing. Otherwise again is set, and the history has to
// be read again after a wait.
func (h *History[H, W]) drain(generation int) (again bool, wait time.Duration) {
	mu := h.host.Mutex()
	for {
		mu.Lock()
		if !h.Follower.Current(generation) {
			mu.Unlock()
			return false, 0
		}
		now := time.Now()
		held, more := h.Follower.Drain(now)
		ws := h.putHeld(held)
		step := follow.More
		if !more {
			step, wait = h.Follower.Drained(now)
		}
		if step == follow.Done {
			h.host.CaughtUp()
		}
		if step == follow.Done || wait > 0 {
			h.host.Tell()
		}
		mu.Unlock()
		h.wake(ws)
		if step != follow.More {
			return step == follow.Again, wait
		}
	}
}

// giveUp ends a reading that is refused.
func (h *History[H, W]) giveUp(generation int, err error) {
	mu := h.host.Mutex()
	mu.Lock()
	if !h.Follower.Current(generation) {
		mu.Unlock()
		return
	}
	ws := h.putHeld(h.Follower.Refused(err, time.Now()))
	h.host.Tell()
	mu.Unlock()
	h.wake(ws)
	h.complain(err)
}

// complain reports that the history cannot be read, unless the hub or its
// adapter has closed.
func (h *History[H, W]) complain(err error) {
	if !isClosed(err) {
		h.host.Reader().Unreadable(h.host.Name(), err)
	}
}

// putHeld puts held frames into the log.
func (h *History[H, W]) putHeld(held []follow.Held[batch.Kept]) []W {
	h.host.Mutex().AssertHeld()
	ws := make([]W, len(held))
	for i := range held {
		ws[i] = h.host.Put(&held[i].Append, &held[i].Frame)
	}
	return ws
}

func (h *History[H, W]) wake(ws []W) {
	for _, w := range ws {
		h.host.Wake(w)
	}
}
