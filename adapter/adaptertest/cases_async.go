package adaptertest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// In all other cases every other frame is published by PublishAsync too.
var asyncCases = []Case{
	{
		Name:        "async-completes-once",
		Explanation: "PublishAsync calls Complete once, with what Publish would return; the frames of a channel keep their order.",
		Nodes:       2, needs: needAsync, run: asyncCompletesOnce,
	},
	{
		Name:        "async-ends-with-close",
		Explanation: "When Close returns nil, Complete has been called for every PublishAsync. A later PublishAsync returns false and calls nothing.",
		Nodes:       2, needs: needAsync, run: asyncEndsWithClose,
	},
	{
		Name:        "async-completes-elsewhere",
		Explanation: "PublishAsync returns at once: Complete is called on another goroutine, and may wait for the caller of PublishAsync.",
		Nodes:       2, needs: needAsync, run: asyncCompletesElsewhere,
	},
	{
		Name:        "async-ends-in-an-outage",
		Explanation: "A PublishAsync in an outage completes within a few seconds.",
		Nodes:       2, needs: needAsync | needCut, run: asyncEndsInAnOutage,
	},
}

// A walker publishes frames one after the other, each when the one before has
// completed, on the adapter's own goroutines.
type walker struct {
	env     *env
	from    *node
	async   adapter.AsyncPublisher
	channel string
	n       int           // frames
	next    int           // number of the next frame
	spare   atomic.Int64  // surplus calls of Complete
	good    atomic.Int64  // frames with one receiver, or an unknown number
	done    chan struct{} // closed when all have completed
}

func (w *walker) step() {
	frame := fmt.Sprint(w.next)
	w.next++
	p := &pace{walker: w}
	if !w.async.PublishAsync(w.channel, []byte(frame), p) { // it may not be connected yet
		w.env.tasks.Go(func() {
			p.Complete(w.from.adapter.Publish(w.env.ctx, w.channel, []byte(frame)))
		})
	}
}

// A pace is one frame of a walker.
type pace struct {
	*walker
	completed atomic.Bool
}

func (w *pace) Complete(receivers int, err error) {
	if w.completed.Swap(true) {
		w.spare.Add(1)
		return
	}
	if err == nil && (receivers == 1 || receivers == -1) {
		w.good.Add(1)
	}
	if w.next < w.n {
		w.step()
	} else {
		close(w.done)
	}
}

func asyncCompletesOnce(e *env) {
	from, to := e.nodes[0], e.nodes[1]
	const channels, each = 8, 50
	var walkers []*walker
	for i := range channels {
		channel := e.channel(fmt.Sprint("room", i))
		e.join(channel, to)
		walkers = append(walkers, &walker{
			env: e, from: from, async: from.adapter.(adapter.AsyncPublisher),
			channel: channel, n: each, done: make(chan struct{}),
		})
	}
	for _, w := range walkers {
		w.step()
	}
	for _, w := range walkers {
		select {
		case <-w.done:
		case <-e.ctx.Done():
			e.failf("Complete is not called for each frame")
		}
	}
	for _, w := range walkers {
		e.settle(from, w.channel, to)
		place := make(map[string]int)
		for i := range each {
			frame := fmt.Sprint(i)
			place[frame] = i
			if n := to.heard.count(w.channel, frame); n != 1 {
				e.failf("%v received frame %q %d times", to, frame, n)
			}
		}
		e.inOrder(to, w.channel, place, "than it was published")
		switch spare, good := w.spare.Load(), w.good.Load(); {
		case spare > 0:
			e.failf("Complete was called %d times more often than there were frames", spare)
		case good != each:
			e.failf("Complete was given no error, and 1 receiver or -1, for %d of %d frames", good, each)
		}
	}
}

func asyncEndsWithClose(e *env) {
	n, other := e.nodes[0], e.nodes[1]
	async := n.adapter.(adapter.AsyncPublisher)
	const frames = 64
	for i := range frames {
		e.join(e.channel(fmt.Sprint("room", i)), other, n)
	}
	var begun, calls atomic.Int64
	for i := range frames {
		if async.PublishAsync(e.channel(fmt.Sprint("room", i)), []byte("frame"), counter{&calls}) {
			begun.Add(1)
		}
	}
	e.close(n)
	if a, b := calls.Load(), begun.Load(); a != b {
		e.failf("Close has returned, but Complete was called for only %d of %d frames", a, b)
	}
	if async.PublishAsync(e.channel("room0"), []byte("frame"), counter{&calls}) {
		e.failf("PublishAsync after Close returned true")
	}
	if _, err := n.adapter.Publish(e.ctx, e.channel("room0"), []byte("frame")); !errors.Is(err, adapter.ErrClosed) {
		e.failf("Publish after Close: %v", err)
	}
	if e.soon(20*time.Millisecond, func() bool { return calls.Load() != begun.Load() }) {
		e.failf("Complete was called after Close")
	}
}

// A counter counts calls of Complete.
type counter struct{ calls *atomic.Int64 }

func (c counter) Complete(int, error) { c.calls.Add(1) }
