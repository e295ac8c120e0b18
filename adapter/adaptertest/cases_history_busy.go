package adaptertest

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
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
	var kept atomic.Int64
	for range 4 { // so that something is always being appended
		tasks = append(tasks, e.start(func() error {
			for i := 0; busy.Err() == nil && i < 5000; i++ {
				if _, _, err := writer.append(e.ctx, channel, newRecord("meanwhile", 1)); err != nil {
					return err
				}
				kept.Add(1)
				time.Sleep(50 * time.Microsecond) // a backend in memory needs no time
			}
			return nil
		}))
	}
	for _, newcomer := range newcomers {
		e.join(channel, newcomer)
		page := e.after(newcomer, channel, adapter.Position{})
		e.unbroken(fmt.Sprintf("%v reads for the first time", newcomer), &page, began)
		if page.First != 1 || len(page.Frames) == 0 || page.Frames[0].At != began {
			e.failf("%v reads for the first time: First is %d, want 1, and %d frames, which must begin with %v", newcomer, page.First, len(page.Frames), began)
		}
		e.contiguous(page.Frames)
	}
	stop()
	for _, t := range tasks {
		e.must(e.wait(t, "Append to %q succeeds", channel), "%v: Append to %q", writer, channel)
	}
	last := e.keep(writer, channel, 1, "last").At
	page := e.after(writer, channel, adapter.Position{})
	e.unbroken(fmt.Sprintf("after Append has returned %v", last), &page, began)
	e.contiguous(page.Frames)
	if n, want := len(page.Frames), int(kept.Load())+2; n != want || !endsAt(&page, last) {
		e.failf("%d frames were kept, the last one at %v, and the history has %d and the head %v", want, last, n, page.Head)
	}
}

// unbroken checks that nothing has been lost since a message. A later epoch is
// all right if those before it were whole, as when a migration takes the
// history to another backend.
func (e *env) unbroken(when string, page *adapter.Page, since adapter.Position) {
	epochs := append(slices.Clone(page.Before), adapter.PastEpoch{Epoch: page.Head.Epoch, Last: page.Head.Offset, Whole: true})
	lost := slices.ContainsFunc(epochs, func(past adapter.PastEpoch) bool { return !past.Whole })
	if lost || epochs[0].Epoch != since.Epoch {
		e.failf("%s: the head is %v, after %v; want nothing lost since epoch %d", when, page.Head, page.Before, since.Epoch)
	}
}
