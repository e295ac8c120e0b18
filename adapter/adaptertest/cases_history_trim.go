package adaptertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// trimmed checks that of the kept frames, the first of which is outside of the
// retention, the history returns those from index from on, and that First is
// the oldest offset.
func (e *env) trimmed(n *node, channel string, q adapter.Query, kept []adapter.KeptFrame, from int, firstOffset uint64) {
	head := kept[len(kept)-1].At
	for _, limit := range []int{readLimit, 4} {
		for _, since := range []adapter.Position{{}, kept[0].At} {
			q.Limit, q.Since = limit, since
			page := e.page(n, channel, q)
			if page.First != firstOffset {
				e.failf("First is %d, want %d: after %v, of %+v, the head is %v", page.First, firstOffset, since, q.Keep, page.Head)
			}
			if !endsAt(&page, head) {
				e.failf("the head is %v, want %v", page.Head, head)
			}
			e.same(fmt.Sprintf("after %v of %+v", since, q.Keep), e.pages(n, channel, q).Frames, kept[from:])
		}
	}
}

func historyTrimsByNumber(e *env) {
	channel, reader := e.channel("room"), e.nodes[1]
	const most = 10
	var kept []adapter.KeptFrame
	for i := range 40 {
		messages := 1 + i%4
		r := newRecord(text(messages, fmt.Sprint(i)), messages)
		r.Keep.Messages = most
		kept = append(kept, adapter.KeptFrame{At: e.mustAppend(e.nodes[0], channel, r), Frame: r.Frame})
		if i < 10 || i%7 > 0 && i < 36 {
			continue
		}
		for _, most := range []int{most, 3} { // also fewer than were kept
			q := query(adapter.Position{})
			q.Keep.Messages = most
			oldest := kept[i].At.Offset - uint64(most) + 1
			from := slices.IndexFunc(kept, func(f adapter.KeptFrame) bool { return f.At.Offset >= oldest })
			e.trimmed(reader, channel, q, kept, from, oldest)
		}
	}
}

func historyTrimsByAge(e *env) {
	n := 0
	e.until(func() bool {
		n++
		return trimsByAge(e, e.channel(fmt.Sprint("room", n)))
	}, "a history is read in less than half a second")
}

// trimsByAge reports false if reading took so long that more may have become
// too old by then. That is gone, so another channel is needed.
func trimsByAge(e *env, channel string) bool {
	reader := e.nodes[1]
	const pause = time.Second
	older := e.keepSome(e.nodes[0], channel, 6)
	ended := time.Now()
	e.until(func() bool { return time.Since(ended) > pause }, "a while passes")
	began := time.Now()
	kept := append(older, e.keepSome(e.nodes[0], channel, 6)...)

	q := query(adapter.Position{})
	for _, limit := range []int{readLimit, 4} {
		for _, since := range []adapter.Position{{}, kept[0].At} {
			q.Limit, q.Since, q.Time = limit, since, time.Now()
			q.Keep.Age = time.Since(began) + pause/2
			if !e.trimmedByAge(reader, channel, q, kept[6:], pause/2) {
				return false
			}
		}
	}
	ended = time.Now()
	e.until(func() bool { return time.Since(ended) > pause/10 }, "a while passes")
	q.Keep.Age = pause / 20
	page := e.page(reader, channel, q)
	if head := kept[len(kept)-1].At; page.Head != head || page.First != head.Offset+1 || len(page.Frames) > 0 {
		e.failf("all frames are too old, but First is %d and the page has %d frames; the head is %v, want %v", page.First, len(page.Frames), page.Head, head)
	}
	return true
}

// trimmedByAge checks that reading returns the wanted frames of an age. It
// checks nothing, and reports false, if reading takes longer than a time within
// which none of them becomes too old.
func (e *env) trimmedByAge(n *node, channel string, q adapter.Query, want []adapter.KeptFrame, within time.Duration) bool {
	began := time.Now()
	page := e.page(n, channel, q)
	all := e.pages(n, channel, q).Frames
	if time.Since(began) > within {
		return false
	}
	if page.First != first(want[0]) {
		e.failf("First is %d, want %d: after %v, of %+v, the head is %v", page.First, first(want[0]), q.Since, q.Keep, page.Head)
	}
	e.same(fmt.Sprintf("after %v of %+v", q.Since, q.Keep), all, want)
	return true
}
