package adaptertest

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// What nodes read while others append.

func historyMatchesLive(e *env) {
	channel, reader := e.channel("room"), e.nodes[0]
	e.join(channel, e.nodes...)
	keepers := e.keepers(channel, e.nodes...)
	var read []adapter.KeptFrame
	since := adapter.Position{}
	readOn := func() {
		page := e.page(reader, channel, query(since))
		read = append(read, page.Frames...)
		if len(read) > 0 {
			since = read[len(read)-1].At
		}
		if !page.More && !endsAt(&page, since) {
			e.failf("the head of a page is %v, its last frame is at %v, and More is false", page.Head, since)
		}
	}
	for range 10 {
		readOn()
		e.keepOn(keepers, 2)
	}
	e.halt(keepers)
	readOn()
	for _, n := range e.nodes {
		e.arrived(n, channel, read)
	}
	for _, from := range e.nodes {
		e.settle(from, channel, e.nodes...)
	}
	e.contiguous(read)
	e.hasAcked(read, keepers, nil)
	for _, n := range e.nodes {
		e.same(fmt.Sprintf("received by %v, compared with the history", n), n.heard.kept(channel), read)
	}
}

func historyBeginsOnce(e *env) {
	others := len(e.nodes) - 1
	channel, writer, newcomers := e.channel("room"), e.nodes[others], e.nodes[:others]
	began := e.keep(writer, channel, 1, "first").At
	busy, stop := context.WithCancel(e.ctx)
	e.atEnd(stop)
	var tasks []*task
	for range 4 { // so that something is always being appended
		tasks = append(tasks, e.start(func() error {
			for i := 0; busy.Err() == nil && i < 5000; i++ {
				if _, _, err := writer.append(e.ctx, channel, newRecord("meanwhile", 1)); err != nil {
					return err
				}
				time.Sleep(50 * time.Microsecond) // a backend in memory needs no time
			}
			return nil
		}))
	}
	for _, newcomer := range newcomers {
		e.join(channel, newcomer)
		page := e.after(newcomer, channel, adapter.Position{})
		if page.Head.Epoch != began.Epoch || len(page.Before) > 0 {
			e.failf("%v reads for the first time: the head is %v, after %v; want epoch %d and none before it", newcomer, page.Head, page.Before, began.Epoch)
		}
		if page.First != 1 || len(page.Frames) == 0 || page.Frames[0].At != began {
			e.failf("%v reads for the first time: First is %d, want 1, and %d frames, which must begin with %v", newcomer, page.First, len(page.Frames), began)
		}
		e.contiguous(page.Frames)
	}
	stop()
	for _, t := range tasks {
		e.must(e.wait(t, "Append to %q succeeds", channel), "%v: Append to %q", writer, channel)
	}
	if last := e.keep(writer, channel, 1, "last").At; last.Epoch != began.Epoch {
		e.failf("after others have read, Append returned %v; it was %v before", last, began)
	}
}
