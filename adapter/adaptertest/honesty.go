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

// hidesNoLoss has nodes 0 and 1 publish to some channels before, during and
// after the fault, and looks for frames that nodes 1 and 2 did not receive.
func (e *env) hidesNoLoss(once bool, fault func(channels []string, streams []*numbered)) {
	var channels []string
	var streams []*numbered
	for i := range 3 {
		channel := e.channel(fmt.Sprint("room", i))
		channels = append(channels, channel)
		e.join(channel, e.nodes[1], e.nodes[2])
		for _, n := range e.nodes[:2] {
			streams = append(streams, &numbered{from: n, channel: channel, to: e.nodes[1:]})
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
		for to := range s.to {
			e.compare(s, to, once)
		}
	}
}

// more waits until the count of each stream has grown by a number.
func (e *env) more(streams []*numbered, by int, count func(*numbered) int) {
	starts := make([]int, len(streams))
	for i, s := range streams {
		starts[i] = count(s)
	}
	for i, s := range streams {
		e.until(func() bool { return count(s) >= starts[i]+by }, "Publish of %v to %q goes on", s.from, s.channel)
	}
}

// numbered is what one node publishes to one channel, with pauses.
type numbered struct {
	from    *node
	channel string
	to      []*node // those that are subscribed

	mu      sync.Mutex
	began   [][]int // by frame, for each of to: the calls of its receiver before Publish was called
	results []error // of Publish, by frame
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
		began := make([]int, len(s.to))
		for k, n := range s.to {
			began[k] = n.heard.calls(s.channel)
		}
		// Not ctx, which would cancel the last one.
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_, err := s.from.publish(one, s.channel, s.frame(i))
		cancel()
		s.mu.Lock()
		s.began, s.results = append(s.began, began), append(s.results, err)
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

// compare checks that a node received what was published, or was told of the
// loss. The stream has ended and is settled, so no frame of it can still
// arrive.
//
// A frame was lost in an interruption if that was between the frames before and
// after it, or began after them and before Restored: the frame before it may
// have come late, by another way, after Restored.
func (e *env) compare(s *numbered, to int, once bool) {
	n := s.to[to]
	events := n.heard.events(s.channel)
	heard := hear(events, s.from)
	next := heard.next(s)
	// last is the place of the last frame for which Publish returned nil and
	// that arrived. A frame whose Publish failed may still arrive, even after
	// later ones.
	last := 0
	for i, err := range s.results {
		frame := s.frame(i)
		places := heard.places[frame]
		switch {
		case len(places) > 1 && once:
			e.failf("%v received %q %d times", n, frame, len(places))
		case len(places) > 0 && errors.Is(err, adapter.ErrUnsent):
			e.failf("%v received %q, but its Publish returned: %w", n, frame, err)
		case err != nil:
		case len(places) > 0:
			last = places[0]
		case last > next[i]:
			e.failf("%v received %q before an earlier frame whose Publish had returned nil", n, events[next[i]].frame)
		case !slices.Contains(heard.during[min(last, s.began[i][to]):next[i]], true):
			e.failf("%v missed %q on %q without being told: Publish returned nil, and there is no interruption between the frames of %v before and after it, nor since Publish was called. All that it received there:\n%v",
				n, frame, s.channel, s.from, events)
		}
	}
}

// A hearing is what was received on a channel, to look up one publisher's
// frames.
type hearing struct {
	places map[string][]int // the places of each frame
	during []bool           // whether the event is in an interruption
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

// next returns, for each frame of a stream, the place of the first later frame
// that was received.
func (h hearing) next(s *numbered) []int {
	next := make([]int, len(s.results))
	end := len(h.during)
	for i := len(next) - 1; i >= 0; i-- {
		next[i] = end
		if places := h.places[s.frame(i)]; len(places) > 0 {
			end = min(end, places[0]) // a frame whose Publish failed may arrive after later ones
		}
	}
	return next
}
