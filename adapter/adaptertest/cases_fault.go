package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

var faultCases = []Case{
	{
		Name:        "broken-link-is-told",
		Explanation: "When a link breaks, the receiver gets Interrupted and then Restored, alternating, for each channel that was confirmed, and for no other.",
		Nodes:       2, needs: needBreak, run: brokenLinkIsTold,
	},
	{
		Name:        "broken-link-heals",
		Explanation: "After a link broke, the adapter restores all subscriptions by itself.",
		Nodes:       2, needs: needBreak, run: brokenLinkHeals,
	},
	{
		Name:        "broken-link-hides-no-loss",
		Explanation: "When a link breaks, a frame for which Publish returned nil is missing only between Interrupted and Restored, and no frame arrives twice.",
		Nodes:       3, needs: needBreak, run: brokenLinkHidesNoLoss,
	},
	{
		Name:        "outage-is-told",
		Explanation: "The receiver gets Interrupted when the backend cannot be reached, and Restored when it can be reached again, alternating, for each channel that was confirmed.",
		Nodes:       2, needs: needCut, run: outageIsTold,
	},
	{
		Name:        "outage-heals",
		Explanation: "After an outage the adapter restores all subscriptions by itself.",
		Nodes:       2, needs: needCut, run: outageHeals,
	},
	{
		Name:        "outage-hides-no-loss",
		Explanation: "In an outage too, frames are missing only between Interrupted and Restored, and no frame arrives twice.",
		Nodes:       3, needs: needCut, run: outageHidesNoLoss,
	},
	{
		Name:        "outage-shows-in-health",
		Explanation: "Health returns an error while a subscription is not connected, and nil when all are again.",
		Nodes:       2, needs: needCut | needHealth, run: outageShowsInHealth,
	},
	{
		Name:        "outage-publish-tells-the-truth",
		Explanation: "Publish in an outage ends with its context. If it returns nil the frame arrives; if its error wraps ErrUnsent the frame never does.",
		Nodes:       2, needs: needCut, run: outagePublish,
	},
	{
		Name:        "outage-subscribe-waits",
		Explanation: "Subscribe in an outage waits until the backend is back or its context ends. If the context ends, the channel is not subscribed.",
		Nodes:       3, needs: needCut, run: outageSubscribe,
	},
	{
		Name:        "outage-unsubscribe-holds",
		Explanation: "A channel that is unsubscribed in an outage is not restored after it.",
		Nodes:       3, needs: needCut, run: outageUnsubscribe,
	},
	{
		Name:        "outage-lets-close",
		Explanation: "Close in an outage ends the calls that wait for the backend, and returns.",
		Nodes:       2, needs: needCut, run: outageClose,
	},
	{
		Name:        "move-hides-no-loss",
		Explanation: "When a channel's home moves, a frame for which Publish returned nil is missing only between Interrupted and Restored, and all subscribers receive again.",
		Nodes:       3, needs: needMove, run: moveHidesNoLoss,
	},
	{
		Name:        "failed-home-hides-no-loss",
		Explanation: "When a channel's home dies, a frame for which Publish returned nil is missing only between Interrupted and Restored, and all subscribers receive again.",
		Nodes:       3, needs: needFail, run: failedHomeHidesNoLoss,
	},
}

func (e *env) breakLink(n *node) {
	e.must(e.offer.Faults.Break(e.ctx, n.index), "Faults.Break of %v", n)
}

// cut cuts a node off until heal is called or the case ends.
func (e *env) cut(n *node) (heal func()) {
	healed := false
	e.atEnd(func() {
		if !healed {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), 10*time.Second)
			defer cancel()
			_ = e.offer.Faults.Heal(ctx, n.index)
		}
	})
	e.must(e.offer.Faults.Cut(e.ctx, n.index), "Faults.Cut of %v", n)
	return func() {
		healed = true
		e.must(e.offer.Faults.Heal(e.ctx, n.index), "Faults.Heal of %v", n)
	}
}

// joinSome has n join some channels.
func (e *env) joinSome(n *node) (channels []string) {
	for i := range 5 {
		channels = append(channels, e.channel(fmt.Sprint("room", i)))
		e.join(channels[i], n)
	}
	return channels
}

// awaitRestored waits until each channel has more notices than were, and the
// last of them is Restored.
func (e *env) awaitRestored(n *node, channels []string, were map[string]string) {
	for _, channel := range channels {
		e.until(func() bool {
			word := n.heard.notices(channel)
			return len(word) > len(were[channel]) && strings.HasSuffix(word, "r")
		}, "%v gets Restored for %q", n, channel)
	}
}

// notices returns the notices that n has had so far.
func (e *env) notices(n *node, channels []string) map[string]string {
	words := make(map[string]string)
	for _, channel := range channels {
		words[channel] = n.heard.notices(channel)
	}
	return words
}

// noticed gives a node that is cut off the time to notice it. Other cases check
// how it reacts.
func (e *env) noticed(n *node, channel string) {
	h, ok := n.adapter.(adapter.HealthChecker)
	e.soon(2*time.Second, func() bool {
		return n.heard.notices(channel) != "" || ok && h.Health() != nil
	})
}

// turns removes complete interruptions from a string of notices. A move that
// fails becomes an interruption.
var turns = strings.NewReplacer("ir", "", "mr", "", "mir", "")

// inTurn checks that Interrupted or Moving and Restored alternate.
func (e *env) inTurn(n *node, channels []string) {
	for _, channel := range channels {
		word := n.heard.notices(channel)
		if turns.Replace(word) != "" {
			e.failf("%v got %q for %q (i: Interrupted, m: Moving, r: Restored), want i or m alternating with r", n, word, channel)
		}
	}
}

func brokenLinkIsTold(e *env) {
	n := e.nodes[1]
	channels := e.joinSome(n)
	left := e.channel("left")
	e.join(left, n)
	e.unsubscribe(n, left)
	for range 3 {
		were := e.notices(n, channels)
		e.breakLink(n)
		e.awaitRestored(n, channels, were)
	}
	e.inTurn(n, channels)
	if word := n.heard.notices(left); word != "" {
		e.failf("%v got the notices %q for a channel that it had unsubscribed from", n, word)
	}
}

func brokenLinkHeals(e *env) {
	n := e.nodes[1]
	channels := e.joinSome(n)
	for range 3 {
		e.breakLink(n)
		for _, channel := range channels {
			e.settle(e.nodes[0], channel, n)
			e.settle(n, channel, n)
		}
		e.healthy(n)
	}
}

// healthy waits until Health of a node returns nil, if the node has it.
func (e *env) healthy(n *node) {
	if h, ok := n.adapter.(adapter.HealthChecker); ok {
		e.until(func() bool { return h.Health() == nil }, "%v says that it is healthy again", n)
	}
}

func outageIsTold(e *env) {
	n := e.nodes[1]
	channels := e.joinSome(n)
	heal := e.cut(n)
	for _, channel := range channels {
		e.until(func() bool { return strings.HasSuffix(n.heard.notices(channel), "i") },
			"%v is told Interrupted for %q", n, channel)
	}
	heal()
	e.awaitRestored(n, channels, nil)
	e.inTurn(n, channels)
}

func outageHeals(e *env) {
	n := e.nodes[1]
	channels := e.joinSome(n)
	e.cut(n)()
	for _, channel := range channels {
		e.settle(e.nodes[0], channel, n)
		e.settle(n, channel, n)
	}
}

func outageShowsInHealth(e *env) {
	n := e.nodes[1]
	e.joinSome(n)
	h := n.adapter.(adapter.HealthChecker)
	heal := e.cut(n)
	e.until(func() bool { return h.Health() != nil }, "Health of %v, which is cut off, returns an error", n)
	heal()
	e.healthy(n)
}

func outagePublish(e *env) {
	witness, n := e.nodes[0], e.nodes[1]
	channel := e.channel("room")
	e.join(channel, witness)
	e.mustPublish(n, channel, "before")
	heal := e.cut(n)
	const patience, slack = 200 * time.Millisecond, 5 * time.Second
	results := make(map[string]error)
	for i := range 10 {
		frame := fmt.Sprint(i)
		ctx, cancel := context.WithTimeout(e.ctx, patience)
		start := time.Now()
		_, err := n.publish(ctx, channel, frame)
		if took := time.Since(start); took > patience+slack {
			e.failf("Publish took %v, its context ended after %v", took, patience)
		}
		cancel()
		results[frame] = err
	}
	heal()
	e.settle(n, channel, witness)
	told := witness.heard.notices(channel) != ""
	for frame, err := range results {
		switch heard := witness.heard.count(channel, frame) > 0; {
		case err == nil && !heard && !told:
			e.failf("%v was cut off, its Publish returned nil, but the frame was lost", n)
		case errors.Is(err, adapter.ErrUnsent) && heard:
			e.failf("the frame arrived, but Publish of %v returned: %w", n, err)
		}
	}
}

func outageSubscribe(e *env) {
	from, n, witness := e.nodes[0], e.nodes[1], e.nodes[2]
	known, short, long := e.channel("known"), e.kind("r", "other"), e.kind("h", "other")
	e.join(known, n)
	heal := e.cut(n)
	e.noticed(n, known)

	err := e.bounded("Subscribe", 200*time.Millisecond, n, func(ctx context.Context) error {
		return n.adapter.Subscribe(ctx, short)
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		e.failf("Subscribe of %v, which is cut off, returned %v, want the error of its context", n, err)
	}
	t := e.start(func() error { return n.adapter.Subscribe(e.ctx, long) })
	e.soon(50*time.Millisecond, t.over)
	for _, channel := range []string{short, long} {
		if events := n.heard.events(channel); len(events) > 0 {
			e.failf("%v got %q for a channel whose subscription was not confirmed", n, events)
		}
	}
	heal()
	e.must(e.wait(t, "Subscribe returns after the outage"), "Subscribe")
	e.settle(from, long, n)
	e.join(short, witness)
	e.silent(n, short, 0, from, witness, long)
	e.join(short, n)
}

func outageUnsubscribe(e *env) {
	from, n, witness := e.nodes[0], e.nodes[1], e.nodes[2]
	channel, beside := e.channel("room"), e.kind("h", "room")
	e.join(channel, n, witness)
	e.join(beside, n)
	heal := e.cut(n)
	e.noticed(n, beside)
	ctx, cancel := context.WithTimeout(e.ctx, 200*time.Millisecond)
	_ = n.adapter.Unsubscribe(ctx, channel) // the subscription ends even if this fails
	cancel()
	calls := n.heard.calls(channel)
	heal()
	e.silent(n, channel, calls, from, witness, beside)
	e.join(channel, n)
}

func outageClose(e *env) {
	n := e.nodes[1]
	channels := e.joinSome(n)
	e.cut(n)
	e.noticed(n, channels[0])
	var subscribing []*task
	for i := range 5 {
		subscribing = append(subscribing, e.start(func() error {
			return n.adapter.Subscribe(e.ctx, e.channel(fmt.Sprint("late", i)))
		}))
	}
	e.close(n)
	for _, t := range subscribing {
		if err := e.wait(t, "Subscribe returns when the adapter is closed"); err == nil {
			e.failf("Subscribe returned nil although Close ended it")
		}
	}
}
