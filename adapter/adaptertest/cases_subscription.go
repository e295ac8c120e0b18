package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

var subscriptionCases = []Case{
	{
		Name:        "subscribed-means-subscribed",
		Explanation: "When Subscribe returns nil, every frame that is published after that by any node arrives.",
		Nodes:       2, run: subscribedMeansSubscribed,
	},
	{
		Name:        "unsubscribed-means-silent",
		Explanation: "When Unsubscribe returns, the receiver gets nothing more of the channel, not even frames that were already being delivered.",
		Nodes:       3, run: unsubscribedMeansSilent,
	},
	{
		Name:        "unsubscribe-waits-for-the-call",
		Explanation: "Unsubscribe does not return nil while a call of the receiver for the channel is running.",
		Nodes:       2, run: unsubscribeWaitsForTheCall,
	},
	{
		Name:        "resubscribe-hears-the-new-only",
		Explanation: "After Unsubscribe and Subscribe a node receives again, but nothing from before.",
		Nodes:       3, run: resubscribe,
	},
	{
		Name:        "subscriptions-do-not-add-up",
		Explanation: "Subscribing to a channel that is subscribed, and unsubscribing from one that is not, changes nothing and is no error.",
		Nodes:       3, run: subscriptionsDoNotAddUp,
	},
	{
		Name:        "subscribe-obeys-context",
		Explanation: "If ctx ends, Subscribe returns its error and the channel is not subscribed; a later Subscribe works.",
		Nodes:       3, run: subscribeObeysContext,
	},
	{
		Name:        "churn-ends-subscribed",
		Explanation: "However fast nodes subscribe and unsubscribe, a node that subscribed last receives from all others.",
		Nodes:       3, run: churnEndsSubscribed,
	},
	{
		Name:        "churn-ends-silent",
		Explanation: "However fast nodes subscribe and unsubscribe, a node that unsubscribed last receives nothing.",
		Nodes:       4, run: churnEndsSilent,
	},
	{
		Name:        "many-channels",
		Explanation: "A node subscribes to thousands of channels at once, and receives on each.",
		Nodes:       2, run: manyChannels,
	},
	{
		Name:        "healthy-when-confirmed",
		Explanation: "Health returns nil while everything that is subscribed is connected and confirmed.",
		Nodes:       1, needs: needHealth, run: healthyWhenConfirmed,
	},
}

func subscribedMeansSubscribed(e *env) {
	for i := range 50 {
		channel := e.channel(fmt.Sprint("room", i))
		e.subscribe(e.nodes[1], channel)
		e.mustPublish(e.nodes[0], channel, "first")
		e.settle(e.nodes[0], channel, e.nodes[1])
		if e.nodes[1].heard.count(channel, "first") == 0 {
			e.failf("the frame that was published after Subscribe had returned was lost (in attempt %d)", i+1)
		}
	}
}

func unsubscribedMeansSilent(e *env) {
	from, n, witness := e.nodes[0], e.nodes[1], e.nodes[2]
	for i := range 10 {
		channel, beside := e.channel(fmt.Sprint("room", i)), e.kind("h", fmt.Sprint("room", i))
		e.join(channel, n, witness)
		e.join(beside, n)
		stop := e.stream(from, channel)
		e.until(func() bool { return len(n.heard.frames(channel)) > 0 }, "%v receives", n)
		e.unsubscribe(n, channel)
		calls := n.heard.calls(channel)
		stop()
		e.silent(n, channel, calls, from, witness, beside)
	}
}

func unsubscribeWaitsForTheCall(e *env) {
	channel := e.channel("room")
	n := e.nodes[1]
	e.join(channel, n)
	release := e.hold(n, channel)
	t := e.start(func() error { return n.adapter.Unsubscribe(e.ctx, channel) })
	if e.soon(100*time.Millisecond, t.over) && t.err == nil {
		e.failf("Unsubscribe returned nil while a call of the receiver was running")
	}
	release()
	e.must(e.wait(t, "Unsubscribe returns after the call"), "Unsubscribe")
}

func resubscribe(e *env) {
	from, n, witness := e.nodes[0], e.nodes[1], e.nodes[2]
	channel, beside := e.channel("room"), e.kind("h", "room")
	e.join(channel, n, witness)
	e.join(beside, n)
	for i := range 3 {
		now, away := fmt.Sprint("present ", i), fmt.Sprint("absent ", i)
		e.mustPublish(from, channel, now)
		e.settle(from, channel, n)
		e.unsubscribe(n, channel)
		e.mustPublish(from, channel, away)
		e.settle(from, channel, witness)
		e.settle(from, beside, n)
		calls := n.heard.calls(channel)
		e.join(channel, n)
		for _, v := range n.heard.events(channel)[calls:] {
			if slices.Contains([]string{now, away}, v.frame) {
				e.failf("%v subscribed again and received %q, from before", n, v.frame)
			}
		}
	}
}

func subscriptionsDoNotAddUp(e *env) {
	from, n, witness := e.nodes[0], e.nodes[1], e.nodes[2]
	channel, beside := e.channel("room"), e.kind("h", "room")
	e.must(n.adapter.Unsubscribe(e.ctx, channel), "Unsubscribe from what never was subscribed")
	e.join(channel, n, witness)
	e.join(beside, n)
	for range 2 {
		e.must(n.adapter.Subscribe(e.ctx, channel), "Subscribe to what is subscribed")
	}
	frame := "after three times Subscribe"
	e.mustPublish(from, channel, frame)
	e.settle(from, channel, n, witness)
	if c := n.heard.count(channel, frame); c != 1 {
		e.failf("%v received a frame %d times that was published once, %s", n, c, frame)
	}
	e.unsubscribe(n, channel)
	e.silent(n, channel, n.heard.calls(channel), from, witness, beside)
	e.must(n.adapter.Unsubscribe(e.ctx, channel), "Unsubscribe from a channel that is no longer subscribed")
	e.join(channel, n)
}

func subscribeObeysContext(e *env) {
	from, n, witness := e.nodes[0], e.nodes[1], e.nodes[2]
	// The deadlines range from passed to so late that Subscribe succeeds.
	for i := range 30 {
		channel, beside := e.channel(fmt.Sprint("room", i)), e.kind("h", fmt.Sprint("room", i))
		e.join(channel, witness)
		e.join(beside, n)
		ctx, cancel := context.WithTimeout(e.ctx, time.Duration(i)*50*time.Microsecond)
		err := n.adapter.Subscribe(ctx, channel)
		cancel()
		switch {
		case err == nil:
			e.settle(from, channel, n)
		case !errors.Is(err, context.DeadlineExceeded):
			e.failf("Subscribe whose deadline passed: %w", err)
		default:
			e.silent(n, channel, n.heard.calls(channel), from, witness, beside)
		}
		e.join(channel, n)
	}
}

// churn has the nodes subscribe to and unsubscribe from channels concurrently.
// In the end they are subscribed.
func churn(e *env, nodes []*node) (channels []string) {
	const rounds = 6
	for i := range 8 {
		channels = append(channels, e.channel(fmt.Sprint("room", i)))
	}
	e.all(len(nodes)*len(channels), func(i int) error {
		n, channel := nodes[i%len(nodes)], channels[i/len(nodes)]
		for range rounds {
			if err := n.adapter.Subscribe(e.ctx, channel); err != nil {
				return err
			}
			if err := n.adapter.Unsubscribe(e.ctx, channel); err != nil {
				return err
			}
		}
		return n.adapter.Subscribe(e.ctx, channel)
	})
	return channels
}

func churnEndsSubscribed(e *env) {
	for _, channel := range churn(e, e.nodes) {
		for _, from := range e.nodes {
			e.settle(from, channel, e.nodes...)
		}
	}
}

func churnEndsSilent(e *env) {
	from, churned := e.nodes[0], e.nodes[1:]
	for i, channel := range churn(e, churned) {
		beside := e.kind("h", fmt.Sprint("room", i))
		e.join(beside, churned...)
		e.join(channel, from)
		e.settle(from, beside, churned...) // nothing that join sent arrives later
		for _, n := range churned {
			e.unsubscribe(n, channel)
			e.silent(n, channel, n.heard.calls(channel), from, from, beside)
		}
	}
}

func manyChannels(e *env) {
	const count, workers = 2000, 100
	from, n := e.nodes[0], e.nodes[1]
	channels := make([]string, count)
	for i := range channels {
		channels[i] = e.channel(fmt.Sprint("room", i))
	}
	e.all(workers, func(w int) error {
		for i := w; i < count; i += workers {
			if err := n.adapter.Subscribe(e.ctx, channels[i]); err != nil {
				return err
			}
		}
		return nil
	})
	e.all(workers, func(w int) error {
		for i := w; i < count; i += workers {
			if _, err := from.publish(e.ctx, channels[i], "hello"); err != nil {
				return err
			}
		}
		return nil
	})
	for _, channel := range channels {
		if n.heard.count(channel, "hello") == 0 {
			e.settle(from, channel, n)
		}
	}
}

func healthyWhenConfirmed(e *env) {
	n := e.nodes[0]
	for i := range 5 {
		e.join(e.channel(fmt.Sprint("room", i)), n)
	}
	e.must(n.adapter.(adapter.HealthChecker).Health(), "Health while all is well")
}
