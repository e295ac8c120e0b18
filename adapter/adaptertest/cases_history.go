package adaptertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

var historyCases = []Case{
	{
		Name:        "history-numbers-messages",
		Explanation: "Append numbers the messages of a channel contiguously from 1. The position of a frame is that of its last message, the same for its publisher, its subscribers and the history.",
		Nodes:       2, needs: needHistory, run: historyNumbersMessages,
	},
	{
		Name:        "history-delivers-live",
		Explanation: "A frame that is kept reaches every subscriber once, in the order of positions. Append counts receivers as Publish does.",
		Nodes:       3, needs: needHistory, run: historyDeliversLive,
	},
	{
		Name:        "history-frames-are-opaque",
		Explanation: "A frame that is kept arrives, live and from the history, as the bytes that were published, whatever they are.",
		Nodes:       2, needs: needHistory, run: historyFramesAreOpaque,
	},
	{
		Name:        "history-reads-after",
		Explanation: "History after a position returns the frames that end after it, in order and without a gap. After the zero Position it returns all frames; for a channel without a history, none.",
		Nodes:       2, needs: needHistory, run: historyReadsAfter,
	},
	{
		Name:        "history-pages",
		Explanation: "Limit bounds a page, More tells whether frames follow, and the next page continues without a gap. With Limit 0 a page has only the head.",
		Nodes:       2, needs: needHistory, run: historyPages,
	},
	{
		Name:        "history-is-of-its-channel",
		Explanation: "Each name has a history of its own. No part of a name is a pattern or a separator, and no part is ignored.",
		Nodes:       2, needs: needHistory, run: historyIsOfItsChannel,
	},
	{
		Name:        "history-trims-by-number",
		Explanation: "A page has no frame that is older than the latest Keep.Messages messages, except one that reaches into them. First tells where they begin.",
		Nodes:       2, needs: needHistory, run: historyTrimsByNumber,
	},
	{
		Name:        "history-trims-by-age",
		Explanation: "A page has no frame that is older than Keep.Age. First tells where the others begin.",
		Nodes:       2, needs: needHistory, run: historyTrimsByAge,
	},
	{
		Name:        "history-repeats-once",
		Explanation: "A frame that is appended again is recognised by its publisher, stream and number: it is neither kept nor sent again.",
		Nodes:       2, needs: needHistory, run: historyRepeatsOnce,
	},
	{
		Name:        "history-matches-live",
		Explanation: "However many nodes publish at once, the frames that subscribers receive and those that are read meanwhile are one sequence with the same positions, and a page shows one moment.",
		Nodes:       3, needs: needHistory, run: historyMatchesLive,
	},
	{
		Name:        "history-begins-once",
		Explanation: "A node that subscribes and reads for the first time while others append takes nothing for lost: its page begins with the first message, and epochs that have ended were whole.",
		Nodes:       5, needs: needHistory, run: historyBeginsOnce,
	},
	{
		Name:        "history-obeys-context",
		Explanation: "Append and History whose context has ended return. If Append returns nil the frame is kept; if its error wraps ErrUnsent the frame never is.",
		Nodes:       2, needs: needHistory, run: historyObeysContext,
	},
	{
		Name:        "history-after-close",
		Explanation: "After Close, History returns an error that wraps ErrClosed, and Append one that wraps ErrUnsent as well.",
		Nodes:       1, needs: needHistory, run: historyAfterClose,
	},
}

// maxEpoch bounds epochs.
const maxEpoch = 1 << 44

func historyNumbersMessages(e *env) {
	channel := e.channel("room")
	e.join(channel, e.nodes[1])
	var want []adapter.KeptFrame
	offset := uint64(0)
	for i, messages := range []int{1, 1, 3, 1, 5, 2, 100, 1} {
		f := e.keep(e.nodes[i%2], channel, messages, fmt.Sprint(i))
		offset += uint64(messages)
		if f.At.Offset != offset {
			e.failf("Append of %d messages after %d returned %v, want offset %d", messages, offset-uint64(messages), f.At, offset)
		}
		if i > 0 && f.At.Epoch < want[i-1].At.Epoch {
			e.failf("Append returned %v after %v", f.At, want[i-1].At)
		}
		begun := time.UnixMilli(int64(f.At.Epoch))
		if f.At.Epoch >= maxEpoch || time.Since(begun).Abs() > 24*time.Hour {
			e.failf("Append returned %v, whose epoch is not close to the current time in milliseconds", f.At)
		}
		want = append(want, f)
	}
	last := want[len(want)-1]
	e.until(func() bool { return e.nodes[1].heard.count(channel, string(last.Frame)) > 0 }, "%v receives what is kept", e.nodes[1])
	e.same("live", e.nodes[1].heard.kept(channel), want)
	page := e.after(e.nodes[0], channel, adapter.Position{})
	e.same("history", page.Frames, want)
	if !endsAt(&page, last.At) {
		e.failf("the head of the history is %v, want %v", page.Head, last.At)
	}
}

func historyDeliversLive(e *env) {
	channel := e.channel("room")
	e.join(channel, e.nodes...)
	const each = 20
	kept := make([][]adapter.KeptFrame, len(e.nodes))
	e.all(len(e.nodes), func(i int) error {
		for j := range each {
			messages := 1 + j%3
			r := newRecord(text(messages, fmt.Sprintf("%d of %v", j, e.nodes[i])), messages)
			at, receivers, err := e.nodes[i].append(e.ctx, channel, r)
			if err != nil {
				return fmt.Errorf("%v: Append: %w", e.nodes[i], err)
			}
			if receivers != len(e.nodes) && receivers != -1 {
				return fmt.Errorf("with %d subscribers Append returned %d", len(e.nodes), receivers)
			}
			kept[i] = append(kept[i], adapter.KeptFrame{At: at, Frame: r.Frame})
		}
		return nil
	})
	want := slices.Concat(kept...)
	slices.SortFunc(want, func(a, b adapter.KeptFrame) int {
		switch {
		case a.At.Before(b.At):
			return -1
		case b.At.Before(a.At):
			return 1
		}
		return 0
	})
	for _, n := range e.nodes {
		e.arrived(n, channel, want)
		for _, from := range e.nodes {
			e.settle(from, channel, n)
		}
		for _, v := range n.heard.events(channel) {
			if string(v.kept) != v.frame {
				e.failf("%v was given %q, which later became %q", n, clip(v.frame), clip(string(v.kept)))
			}
		}
		e.same(fmt.Sprintf("received by %v", n), n.heard.kept(channel), want)
	}
}

func historyFramesAreOpaque(e *env) {
	every, big := make([]byte, 256), make([]byte, 1<<20)
	for i := range every {
		every[i] = byte(i)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range big {
		big[i] = byte(random.Uint32())
	}
	frames := [][]byte{
		[]byte(""), []byte("\x00"), []byte("x"), []byte("\r\n"), []byte("a\x00b"), []byte("$5\r\nhello\r\n"), []byte("12"), []byte("1-1"),
		[]byte(`{"json":true}`), []byte("\xff\xfe not UTF-8"), every, big,
	}
	channel := e.channel("room")
	e.join(channel, e.nodes[1])
	var want []adapter.KeptFrame
	const spare = "spare"
	for _, frame := range frames {
		r := newRecord("", 1)
		buffer := append(slices.Clone(frame), spare...) // the bytes behind the frame are the publisher's too
		r.Frame = buffer[:len(frame)]
		want = append(want, adapter.KeptFrame{At: e.mustAppend(e.nodes[0], channel, r), Frame: frame})
		if !bytes.Equal(buffer[:len(frame)], frame) || string(buffer[len(frame):]) != spare {
			e.failf("the adapter changed what was appended: %q is now %q", clip(string(frame)), clip(string(buffer)))
		}
	}
	e.arrived(e.nodes[1], channel, want)
	e.settle(e.nodes[0], channel, e.nodes[1])
	e.same("live", e.nodes[1].heard.kept(channel), want)
	e.same("history", e.after(e.nodes[1], channel, adapter.Position{}).Frames, want)
}

func historyReadsAfter(e *env) {
	channel, reader := e.channel("room"), e.nodes[1]
	page := e.page(reader, e.channel("nothing"), query(adapter.Position{}))
	if !page.Head.IsZero() || page.First != 1 || page.More || len(page.Before)+len(page.Frames) > 0 {
		e.failf("History of a channel that has none: %+v", page)
	}
	kept := e.keepSome(e.nodes[0], channel, 30)
	head := kept[len(kept)-1].At

	e.same("after the zero Position", e.after(reader, channel, adapter.Position{}).Frames, kept)
	for i, f := range kept {
		e.same(fmt.Sprintf("after %v", f.At), e.after(reader, channel, f.At).Frames, kept[i+1:])
		if messagesOf(f.Frame) == 1 {
			continue
		}
		inside := adapter.Position{Epoch: f.At.Epoch, Offset: f.At.Offset - 1}
		e.same(fmt.Sprintf("after %v, which is inside a frame", inside), e.after(reader, channel, inside).Frames, kept[i:])
	}

	// Concurrently; changing one page does not change another.
	e.all(8, func(int) error {
		page, err := reader.historian().History(e.ctx, channel, query(adapter.Position{}))
		clear(page.Frames)
		return err
	})
	page = e.after(reader, channel, adapter.Position{})
	e.same("what others have read as well", page.Frames, kept)
	if !endsAt(&page, head) || page.First != 1 {
		e.failf("the head is %v and First %d, want %v and 1", page.Head, page.First, head)
	}
}

func historyPages(e *env) {
	channel, reader := e.channel("room"), e.nodes[1]
	kept := e.keepSome(e.nodes[0], channel, 40)
	head := kept[len(kept)-1].At
	for _, limit := range []int{1, 2, 5, 30, 79, 80, 1000} {
		q := query(adapter.Position{})
		q.Limit = limit
		var got []adapter.KeptFrame
		for more := true; more; {
			page := e.page(reader, channel, q)
			messages := 0
			for _, f := range page.Frames {
				if messages >= limit {
					e.failf("Limit is %d, but the page after %v has %d frames", limit, q.Since, len(page.Frames))
				}
				messages += int(messagesOf(f.Frame))
			}
			if more = page.More; more && len(page.Frames) == 0 {
				e.failf("More was true, but the page after %v is empty", q.Since)
			}
			if !endsAt(&page, head) {
				e.failf("the head of a page is %v, want %v", page.Head, head)
			}
			got = append(got, page.Frames...)
			if len(got) > len(kept) {
				break
			}
			if more {
				q.Since = got[len(got)-1].At
			}
		}
		e.same(fmt.Sprintf("in pages of %d", limit), got, kept)
	}
	q := query(adapter.Position{})
	q.Limit = 0
	if page := e.page(reader, channel, q); !endsAt(&page, head) || len(page.Frames) > 0 {
		e.failf("with Limit 0 the page has the head %v, want %v, and %d frames", page.Head, head, len(page.Frames))
	}
}

func historyIsOfItsChannel(e *env) {
	channels := names(e)
	frames := make([]adapter.KeptFrame, len(channels))
	for i, channel := range channels {
		frames[i] = e.keep(e.nodes[0], channel, 1, fmt.Sprint(i))
	}
	for i, channel := range channels {
		e.same(fmt.Sprintf("history of %q, channel %d", channel, i),
			e.after(e.nodes[1], channel, adapter.Position{}).Frames, frames[i:i+1])
	}
}

func historyRepeatsOnce(e *env) {
	channel := e.channel("room")
	e.join(channel, e.nodes[1])
	var want []adapter.KeptFrame
	appendTo := func(n *node, publisher string, stream, seq uint64, messages int, fresh bool) {
		r := newRecord(text(messages, fmt.Sprintf("%d of stream %d of %q", seq, stream, publisher)), messages)
		r.Publisher, r.Stream, r.Seq = publisher, stream, seq
		at, receivers, err := n.append(e.ctx, channel, r)
		e.must(err, "Append of %q", r.Frame)
		if fresh {
			want = append(want, adapter.KeptFrame{At: at, Frame: r.Frame})
			return
		}
		i := slices.IndexFunc(want, func(f adapter.KeptFrame) bool { return bytes.Equal(f.Frame, r.Frame) })
		if receivers != -1 || at.Before(want[i].At) {
			e.failf("Append of %v again returned %v and %d receivers, want that position or a later one, and -1", show(want[i]), at, receivers)
		}
	}
	a, b := e.nodes[0], e.nodes[1]
	appendTo(a, "me", 7, 1, 2, true)
	appendTo(a, "me", 7, 1, 2, false)
	appendTo(a, "me", 7, 3, 3, true)
	appendTo(b, "me", 7, 3, 3, false) // which node publishes makes no difference
	appendTo(a, "me", 7, 1, 2, false)
	appendTo(b, "you", 7, 1, 2, true)
	appendTo(b, "you", 7, 1, 2, false)
	appendTo(a, "me", 7, 3, 3, false)
	appendTo(a, "me", 8, 1, 2, true)
	appendTo(a, "me", 8, 1, 2, false)
	for range 2 {
		appendTo(a, "", 7, 1, 2, true)
	}
	appendTo(a, "me", 8, 3, 1, true)
	e.arrived(b, channel, want)
	e.settle(a, channel, b)
	e.settle(b, channel, b)
	e.same("live", b.heard.kept(channel), want)
	e.same("history", e.after(a, channel, adapter.Position{}).Frames, want)
}

func historyObeysContext(e *env) {
	channel := e.channel("room")
	e.mustAppend(e.nodes[0], channel, newRecord("before", 1))
	ended, cancel := context.WithCancel(e.ctx)
	cancel()
	results := make(map[string]error)
	for i := range 20 {
		r := newRecord(fmt.Sprint(i), 1)
		_, _, err := e.nodes[0].append(ended, channel, r)
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, adapter.ErrUnsent) {
			e.failf("Append with a canceled context: %w", err)
		}
		results[string(r.Frame)] = err
		t := e.start(func() error {
			_, err := e.nodes[0].historian().History(ended, channel, query(adapter.Position{}))
			return err
		})
		if err := e.wait(t, "History returns in a canceled context"); err != nil && !errors.Is(err, context.Canceled) {
			e.failf("History with a canceled context: %w", err)
		}
	}
	e.mustAppend(e.nodes[0], channel, newRecord("after", 1))
	e.truth(e.after(e.nodes[1], channel, adapter.Position{}).Frames, results)
}

// truth compares what Append returned with what is kept.
func (e *env) truth(kept []adapter.KeptFrame, results map[string]error) {
	has := make(map[string]bool)
	for _, f := range kept {
		has[string(f.Frame)] = true
	}
	for frame, err := range results {
		switch {
		case err == nil && !has[frame]:
			e.failf("Append returned nil, but the frame is not kept")
		case errors.Is(err, adapter.ErrUnsent) && has[frame]:
			e.failf("the frame is kept, but Append returned: %w", err)
		}
	}
}

func historyAfterClose(e *env) {
	n := e.nodes[0]
	channel := e.channel("room")
	e.keep(n, channel, 1, "before")
	e.close(n)
	if _, err := n.historian().History(e.ctx, channel, query(adapter.Position{})); !errors.Is(err, adapter.ErrClosed) {
		e.failf("History after Close: %v", err)
	}
	_, _, err := n.append(e.ctx, channel, newRecord("after", 1))
	if !errors.Is(err, adapter.ErrClosed) || !errors.Is(err, adapter.ErrUnsent) {
		e.failf("Append after Close: %v", err)
	}
}
