package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

func brokenLinkHidesNoLoss(e *env) {
	e.hidesNoLoss(true, func([]string, []*numbered) {
		for range 3 {
			e.breakLink(e.nodes[1])
			e.healthy(e.nodes[1])
		}
	})
}

func outageHidesNoLoss(e *env) {
	e.hidesNoLoss(true, func(channels []string, streams []*numbered) {
		heal := e.cut(e.nodes[1])
		e.noticed(e.nodes[1], channels[0])
		e.more(streams, 5, (*numbered).tried)
		heal()
	})
}

func moveHidesNoLoss(e *env) {
	e.hidesNoLoss(false, func(channels []string, _ []*numbered) {
		for _, channel := range channels {
			e.must(e.offer.Faults.Move(e.ctx, channel), "Faults.Move of %q", channel)
		}
	})
}

func failedHomeHidesNoLoss(e *env) {
	e.hidesNoLoss(false, func(channels []string, _ []*numbered) {
		e.must(e.offer.Faults.Fail(e.ctx, channels[0]), "Faults.Fail of %q", channels[0])
	})
}

// hidesNoLoss has nodes 0 and 1 publish to some channels, before, while and
// after the fault happens, and looks for frames that nodes 1 and 2 did not get.
func (e *env) hidesNoLoss(once bool, fault func(channels []string, streams []*numbered)) {
	var channels []string
	var streams []*numbered
	for i := range 3 {
		channel := e.channel(fmt.Sprint("room", i))
		channels = append(channels, channel)
		e.join(channel, e.nodes[1], e.nodes[2])
		for _, n := range e.nodes[:2] {
			streams = append(streams, &numbered{from: n, channel: channel})
		}
	}
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	var tasks []*task
	for _, s := range streams {
		tasks = append(tasks, e.start(func() error { s.run(ctx); return nil }))
	}
	e.more(streams, 20, (*numbered).accepted)
	fault(channels, streams)
	for _, s := range streams {
		e.settle(s.from, s.channel, e.nodes[1], e.nodes[2])
	}
	e.more(streams, 20, (*numbered).accepted)
	stop()
	for _, t := range tasks {
		_ = e.wait(t, "Publish returns")
	}
	for _, s := range streams {
		e.settle(s.from, s.channel, e.nodes[1], e.nodes[2])
		for _, n := range e.nodes[1:] {
			e.compare(s, n, once)
		}
	}
}

// more waits until the count of each stream has grown by so many.
func (e *env) more(streams []*numbered, by int, count func(*numbered) int) {
	starts := make([]int, len(streams))
	for i, s := range streams {
		starts[i] = count(s)
	}
	for i, s := range streams {
		e.until(func() bool { return count(s) >= starts[i]+by }, "Publish of %v to %q goes on", s.from, s.channel)
	}
}

// numbered is what one node publishes to one channel, at an easy pace.
type numbered struct {
	from    *node
	channel string

	mu      sync.Mutex
	results []error // of each Publish
	ok      int
}

func (s *numbered) frame(i int) string { return fmt.Sprintf("%d of %v", i, s.from) }

func (s *numbered) accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ok
}

func (s *numbered) tried() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.results)
}

func (s *numbered) run(ctx context.Context) {
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		// Not ctx, which would cut off the last one.
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_, err := s.from.publish(one, s.channel, s.frame(i))
		cancel()
		s.mu.Lock()
		s.results = append(s.results, err)
		if err == nil {
			s.ok++
		}
		s.mu.Unlock()
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
}

// compare sees to it that n heard what was published, or was told about it.
// The stream is over and settled, so nothing of it is on its way.
func (e *env) compare(s *numbered, n *node, once bool) {
	events := n.heard.events(s.channel)
	heard := hear(events, s.from)
	next := heard.next(s)
	// The place of the last frame before that was taken, and heard. One whose
	// Publish failed says nothing: it may still arrive, after later ones even.
	last := 0
	for i, err := range s.results {
		frame := s.frame(i)
		places := heard.places[frame]
		switch {
		case len(places) > 1 && once:
			e.failf("%v heard %q %d times", n, frame, len(places))
		case len(places) > 0 && errors.Is(err, adapter.ErrUnsent):
			e.failf("%v heard %q, but its Publish said: %w", n, frame, err)
		case err != nil:
		case len(places) > 0:
			last = places[0]
		case last > next[i]:
			e.failf("%v heard %q before an earlier one whose Publish had returned nil", n, events[next[i]].frame)
		case !slices.Contains(heard.during[last:next[i]], true):
			e.failf("%v missed %q on %q without being told: Publish returned nil, and there is no interruption between the frames of %v before and after it. All that it heard there:\n%v",
				n, frame, s.channel, s.from, events)
		}
	}
}

// A hearing is what was heard on a channel, to look up one publisher's frames.
type hearing struct {
	places map[string][]int // where each frame stands
	during []bool           // whether the event falls in an interruption
}

func hear(events []event, from *node) hearing {
	h := hearing{places: make(map[string][]int), during: make([]bool, len(events))}
	interrupted := false
	for i, v := range events {
		switch v.kind {
		case 'i', 'm':
			interrupted = true
		case 'r':
			interrupted = false
		default:
			if strings.HasSuffix(v.frame, " of "+from.String()) {
				h.places[v.frame] = append(h.places[v.frame], i)
			}
		}
		h.during[i] = interrupted || v.kind == 'r'
	}
	return h
}

// next returns, for each frame of a stream, the place of the first one after it
// that was heard.
func (h hearing) next(s *numbered) []int {
	next := make([]int, len(s.results))
	end := len(h.during)
	for i := len(next) - 1; i >= 0; i-- {
		next[i] = end
		if places := h.places[s.frame(i)]; len(places) > 0 {
			end = min(end, places[0]) // one whose Publish failed may come after later ones
		}
	}
	return next
}
