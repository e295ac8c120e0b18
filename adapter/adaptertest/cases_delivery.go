package adaptertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/fanoutgo/fanout/adapter"
)

var deliveryCases = []Case{
	{
		Name:        "attach-once",
		Explanation: "Attach is called once; a second call is an error, and the first receiver stays.",
		Nodes:       1, unattached: true, run: attachOnce,
	},
	{
		Name:        "delivers-to-all",
		Explanation: "A frame reaches every node that is subscribed to its channel, including the publisher.",
		Nodes:       3, run: deliversToAll,
	},
	{
		Name:        "delivers-once",
		Explanation: "A frame is handed over once for each Publish.",
		Nodes:       3, run: deliversOnce,
	},
	{
		Name:        "publisher-need-not-subscribe",
		Explanation: "A node that is not subscribed to a channel can publish to it, and does not receive from it.",
		Nodes:       2, run: publisherNeedNotSubscribe,
	},
	{
		Name:        "names-are-opaque",
		Explanation: "Each name is a channel of its own. No part of a name is a pattern or a separator, and no part is ignored.",
		Nodes:       3, run: namesAreOpaque,
	},
	{
		Name:        "frames-are-opaque",
		Explanation: "A frame arrives as the bytes that were published, whatever they are.",
		Nodes:       2, run: framesAreOpaque,
	},
	{
		Name:        "frames-are-kept",
		Explanation: "The adapter changes neither a frame that was published nor one that it has delivered.",
		Nodes:       3, run: framesAreKept,
	},
	{
		Name:        "receivers-are-counted",
		Explanation: "Publish returns the number of subscribers that the frame was sent to, or -1 if the backend cannot tell.",
		Nodes:       4, run: receiversAreCounted,
	},
	{
		Name:        "publish-obeys-context",
		Explanation: "A Publish whose context has ended returns. If it returns nil the frame arrives; if its error wraps ErrUnsent the frame never does.",
		Nodes:       2, run: publishObeysContext,
	},
}

func attachOnce(e *env) {
	n := e.nodes[0]
	e.must(n.adapter.Attach(n.heard), "Attach")
	other := newRecorder()
	if err := n.adapter.Attach(other); err == nil {
		e.failf("the second Attach returned nil")
	}
	channel := e.channel("room")
	e.join(channel, n)
	if other.calls(channel) > 0 {
		e.failf("the receiver of the second Attach was called: %q", other.events(channel))
	}
}

// talk has all nodes join a channel and publish to it in turn. It returns the
// frames.
func talk(e *env, channel string) []string {
	e.join(channel, e.nodes...)
	var frames []string
	for i := range 20 {
		for _, n := range e.nodes {
			frame := fmt.Sprintf("%d of %v", i, n)
			e.mustPublish(n, channel, frame)
			frames = append(frames, frame)
		}
	}
	for _, n := range e.nodes {
		e.settle(n, channel, e.nodes...)
	}
	return frames
}

func deliversToAll(e *env) {
	channel := e.channel("room")
	for _, frame := range talk(e, channel) {
		for _, n := range e.nodes {
			if n.heard.count(channel, frame) == 0 {
				e.failf("%v did not receive %q, but received what was published later", n, frame)
			}
		}
	}
}

func deliversOnce(e *env) {
	channel := e.channel("room")
	for _, frame := range talk(e, channel) {
		for _, n := range e.nodes {
			if c := n.heard.count(channel, frame); c > 1 {
				e.failf("%v received %q %d times", n, frame, c)
			}
		}
	}
}

func publisherNeedNotSubscribe(e *env) {
	channel, beside := e.channel("room"), e.kind("h", "room")
	publisher, subscriber := e.nodes[0], e.nodes[1]
	e.join(channel, subscriber)
	e.join(beside, publisher)
	for i := range 5 {
		_, err := publisher.publish(e.ctx, channel, fmt.Sprint(i))
		e.must(err, "%v, which is not subscribed: Publish", publisher)
	}
	e.silent(publisher, channel, 0, publisher, subscriber, beside)
}

// names returns channels that a careless adapter confuses.
func names(e *env) []string {
	rooms := []string{
		"a", "A", "ab", "a*", "a?", "a[b]", "a[^c]", "a\\b", "a.b", "a.*", "a.>", "a/b", "a/#", "a:b", "*", ">", "",
		" a", "a ", "a b", "a\tb", "a\r\nb", "a\nb", "a\x00b", "\x7f", "\u00e9", "e\u0301", "房间", "🎮",
		"%7B", "%25", strings.Repeat("x", 20), strings.Repeat("x", 254), strings.Repeat("x", 255),
		strings.Repeat("%7B", 255), strings.Repeat("%7B", 254),
	}
	var channels []string
	for _, room := range rooms {
		channels = append(channels, e.channel(room))
	}
	return append(channels, e.kind("h", "a"), e.kind("i", "a"), e.kind("rr", "a"), e.channel("a")+":h", "x"+e.channel("a"))
}

func namesAreOpaque(e *env) {
	all, half := e.nodes[1], e.nodes[2]
	channels := names(e)
	for i, channel := range channels {
		e.subscribe(all, channel)
		if i%2 == 0 {
			e.subscribe(half, channel)
		}
	}
	settle := func() {
		for i, channel := range channels {
			if i%2 == 0 {
				e.settle(e.nodes[0], channel, all, half)
			} else {
				e.settle(e.nodes[0], channel, all)
			}
		}
	}
	settle()
	for i, channel := range channels {
		e.mustPublish(e.nodes[0], channel, fmt.Sprint(i))
	}
	settle()
	for i, channel := range channels {
		want := []string{fmt.Sprint(i)}
		if got := all.heard.frames(channel); !slices.Equal(got, want) {
			e.failf("on %q %v received %q, want %q; these are indexes of %q", channel, all, got, want, channels)
		}
		if i%2 == 1 && half.heard.calls(channel) > 0 {
			e.failf("%v is not subscribed to %q, but its receiver was called: %q", half, channel, half.heard.events(channel))
		}
	}
}

func framesAreOpaque(e *env) {
	every, big := make([]byte, 256), make([]byte, 1<<20)
	for i := range every {
		every[i] = byte(i)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range big {
		big[i] = byte(random.Uint32())
	}
	frames := [][]byte{
		[]byte(""), []byte("\x00"), []byte("x"), []byte("\r\n"), []byte("a\x00b"), []byte("+OK\r\n"), []byte("$5\r\nhello\r\n"),
		[]byte("*3\r\n$7\r\nmessage\r\n"), []byte(`{"json":true}`), []byte("\xff\xfe not UTF-8"), every, big,
	}
	for i, frame := range frames {
		channel := e.channel(fmt.Sprint("frame", i))
		e.join(channel, e.nodes[1])
		_, err := e.nodes[0].publishBytes(e.ctx, channel, slices.Clone(frame))
		e.must(err, "Publish of %d bytes %q", len(frame), clip(string(frame)))
		e.settle(e.nodes[0], channel, e.nodes[1])
		got := e.nodes[1].heard.frames(channel)
		if len(got) != 1 || got[0] != string(frame) {
			e.failf("published %d bytes, %q; received %d frames, %v", len(frame), clip(string(frame)), len(got), clip(fmt.Sprintf("%q", got)))
		}
	}
}

func framesAreKept(e *env) {
	channel := e.channel("room")
	e.join(channel, e.nodes[1], e.nodes[2])
	const spare = "spare"
	var published [][]byte
	for i := range 50 {
		// The bytes behind the frame belong to the publisher as well.
		frame := append(bytes.Repeat([]byte{byte('a' + i%26)}, 10+i), spare...)
		published = append(published, frame)
		_, err := e.nodes[0].publishBytes(e.ctx, channel, frame[:len(frame)-len(spare)])
		e.must(err, "Publish")
	}
	e.settle(e.nodes[0], channel, e.nodes[1], e.nodes[2])
	for i, frame := range published {
		want := strings.Repeat(string(rune('a'+i%26)), 10+i) + spare
		if string(frame) != want {
			e.failf("the adapter changed what was published: %q is now %q", want, frame)
		}
	}
	for _, n := range e.nodes[1:] {
		for _, v := range n.heard.events(channel) {
			if string(v.kept) != v.frame {
				e.failf("%v was given %q, which later became %q", n, v.frame, v.kept)
			}
		}
	}
}

func receiversAreCounted(e *env) {
	channel := e.channel("room")
	// The publisher subscribes last but one, so it counts itself once.
	for i, n := range []*node{nil, e.nodes[1], e.nodes[2], e.nodes[0], e.nodes[3]} {
		if n != nil {
			e.join(channel, n)
		}
		for range 3 {
			got, err := e.nodes[0].publish(e.ctx, channel, "count")
			e.must(err, "Publish with %d subscribers", i)
			if got != i && got != -1 {
				e.failf("with %d subscribers Publish returned %d", i, got)
			}
		}
	}
}

func publishObeysContext(e *env) {
	channel := e.channel("room")
	e.join(channel, e.nodes[1])
	ended, cancel := context.WithCancel(e.ctx)
	cancel()
	results := make(map[string]error)
	for i := range 20 {
		frame := fmt.Sprint(i)
		_, err := e.nodes[0].publish(ended, channel, frame)
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, adapter.ErrUnsent) {
			e.failf("Publish with a canceled context: %w", err)
		}
		results[frame] = err
	}
	e.settle(e.nodes[0], channel, e.nodes[1])
	for frame, err := range results {
		switch heard := e.nodes[1].heard.count(channel, frame) > 0; {
		case err == nil && !heard:
			e.failf("Publish with a canceled context returned nil, but the frame was lost")
		case errors.Is(err, adapter.ErrUnsent) && heard:
			e.failf("the frame arrived, but Publish returned: %w", err)
		}
	}
}
