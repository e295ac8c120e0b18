package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// leaveCases test what remains of a subscription or an adapter that has ended.
var leaveCases = []Case{
	{
		Name:        "unsubscribe-reaches-the-backend",
		Explanation: "Some time after Unsubscribe, or after a Subscribe that failed, the backend no longer counts the adapter.",
		Nodes:       2, run: unsubscribeReachesTheBackend,
	},
	{
		Name:        "failed-subscribe-ends-the-subscription",
		Explanation: "If ctx ends a Subscribe, the channel is not subscribed, even if it was before.",
		Nodes:       3, run: failedSubscribeEndsTheSubscription,
	},
	{
		Name:        "notices-alternate",
		Explanation: "The receiver gets Interrupted only for confirmed channels, and Restored only after Interrupted, never for a Subscribe.",
		Nodes:       2, run: noticesAlternate,
	},
	{
		Name:        "close-waits-for-the-call",
		Explanation: "No Close returns nil while a call of the receiver is running, neither the first nor the second. A Close whose context ends returns the error of the context.",
		Nodes:       2, run: closeWaitsForTheCall,
	},
	{
		Name:        "broken-link-leaves-no-subscription",
		Explanation: "A channel that is unsubscribed while a broken link comes back is unsubscribed at the backend too, and one that is subscribed is subscribed once.",
		Nodes:       2, needs: needBreak, run: brokenLinkLeavesNoSubscription,
	},
	{
		Name:        "outage-leaves-no-subscription",
		Explanation: "A channel that is unsubscribed in an outage, or whose Subscribe failed in it, is not subscribed at the backend afterwards. Unsubscribe does not wait for the backend longer than its context.",
		Nodes:       2, needs: needCut, run: outageLeavesNoSubscription,
	},
}

// counted waits until the backend counts want subscribers, if it can count.
func (e *env) counted(from *node, channel string, want int) {
	last, asked := 0, false
	e.until(func() bool {
		ctx, cancel := context.WithTimeout(e.ctx, 2*time.Second)
		defer cancel()
		n, err := from.publish(ctx, channel, probe+"anybody?")
		if err == nil {
			last, asked = n, true
		}
		return err == nil && (n == want || n == -1)
	}, "the backend counts %d subscribers of %q (it was asked: %v)", want, channel, lazy(func() string {
		if !asked {
			return "no Publish succeeded"
		}
		return fmt.Sprint("it says ", last)
	}))
}

// lazy is a part of a message that is computed when it is printed.
type lazy func() string

func (l lazy) String() string { return l() }

func unsubscribeReachesTheBackend(e *env) {
	from, n := e.nodes[0], e.nodes[1]
	var channels []string
	for i := range 10 {
		channels = append(channels, e.channel(fmt.Sprint("room", i)))
		e.join(channels[i], n)
	}
	for _, channel := range channels {
		e.unsubscribe(n, channel)
	}
	for i := range 10 {
		channel := e.channel(fmt.Sprint("failed", i))
		channels = append(channels, channel)
		ctx, cancel := context.WithTimeout(e.ctx, time.Duration(i)*50*time.Microsecond)
		err := n.adapter.Subscribe(ctx, channel)
		cancel()
		if err == nil {
			e.unsubscribe(n, channel)
		}
	}
	for _, channel := range channels {
		e.counted(from, channel, 0)
	}
}

// bounded calls f, of a node, with a context that ends soon, and checks that f
// returns then.
func (e *env) bounded(what string, patience time.Duration, n *node, f func(context.Context) error) error {
	const slack = 5 * time.Second
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	t := e.start(func() error { return f(ctx) })
	if !e.soon(patience+slack, t.over) {
		e.failf("%s of %v does not end with its context", what, n)
	}
	return t.err
}

func failedSubscribeEndsTheSubscription(e *env) {
	from, n, witness := e.nodes[0], e.nodes[1], e.nodes[2]
	for i := range 10 {
		channel, beside := e.channel(fmt.Sprint("room", i)), e.kind("h", fmt.Sprint("room", i))
		e.join(channel, n, witness)
		e.join(beside, n)
		ctx, cancel := context.WithTimeout(e.ctx, time.Duration(i)*20*time.Microsecond)
		err := n.adapter.Subscribe(ctx, channel)
		cancel()
		if err == nil {
			e.settle(from, channel, n)
			continue
		}
		e.silent(n, channel, n.heard.calls(channel), from, witness, beside)
		e.join(channel, n)
	}
}

func noticesAlternate(e *env) {
	from, n := e.nodes[0], e.nodes[1]
	var channels []string
	for i := range 5 {
		channel := e.channel(fmt.Sprint("room", i))
		channels = append(channels, channel)
		for range 2 {
			e.join(channel, n)
			e.subscribe(n, channel)
			e.settle(from, channel, n)
			e.unsubscribe(n, channel)
		}
		e.join(channel, n)
	}
	e.inTurn(n, channels)
}

func closeWaitsForTheCall(e *env) {
	n := e.nodes[1]
	channel := e.channel("room")
	e.join(channel, n)
	release := e.hold(n, channel)
	first := e.start(func() error { return n.adapter.Close(e.ctx) })
	second := e.start(func() error {
		<-time.After(10 * time.Millisecond)
		return n.adapter.Close(e.ctx)
	})
	if e.soon(100*time.Millisecond, func() bool { return first.over() || second.over() }) {
		e.failf("Close returned nil while a call of the receiver was running")
	}
	if err := e.bounded("Close", 50*time.Millisecond, n, n.adapter.Close); !errors.Is(err, context.DeadlineExceeded) {
		e.failf("Close whose context ended returned %v", err)
	}
	release()
	e.must(e.wait(first, "Close returns after the call"), "Close")
	e.must(e.wait(second, "the second Close returns after the call"), "the second Close")
}

// leaveAndReturn unsubscribes, then subscribes and unsubscribes in turn, the
// given number of times.
func (e *env) leaveAndReturn(n *node, channel string, times int) error {
	for i := range 1 + times {
		f := n.adapter.Unsubscribe
		if i%2 == 1 {
			f = n.adapter.Subscribe
		}
		if err := f(e.ctx, channel); err != nil {
			return err
		}
	}
	return nil
}

func brokenLinkLeavesNoSubscription(e *env) {
	from, n := e.nodes[0], e.nodes[1]
	const count, rounds = 24, 3
	stays := e.channel("stays")
	e.join(stays, n)
	for round := range rounds {
		var channels []string
		for i := range count {
			channels = append(channels, e.channel(fmt.Sprintf("room%d-%d", round, i)))
			e.subscribe(n, channels[i])
		}
		e.breakLink(n)
		// The link may be back at once or after a while: many channels are
		// unsubscribed at first, and fewer later.
		want := make([]int, count)
		e.all(count, func(i int) error {
			want[i] = i % 2
			e.soon(time.Duration(i*i)*100*time.Microsecond, func() bool { return false })
			return e.leaveAndReturn(n, channels[i], i%4)
		})
		e.settle(from, stays, n)
		e.healthy(n)
		for i, channel := range channels {
			if want[i] > 0 {
				e.settle(from, channel, n)
			}
			e.counted(from, channel, want[i])
		}
	}
	e.counted(from, stays, 1)
}

func outageLeavesNoSubscription(e *env) {
	from, n := e.nodes[0], e.nodes[1]
	stays := e.channel("stays")
	e.join(stays, n)
	var channels []string
	for i := range 20 {
		channels = append(channels, e.channel(fmt.Sprint("room", i)))
		e.subscribe(n, channels[i])
	}
	heal := e.cut(n)
	e.noticed(n, stays)
	for i, channel := range channels[:18] {
		if i == 10 {
			heal() // the rest is unsubscribed while the link comes back
		}
		const patience = 20 * time.Millisecond
		_ = e.bounded("Unsubscribe", patience, n, func(ctx context.Context) error {
			return n.adapter.Unsubscribe(ctx, channel) // the subscription ends even if this fails
		})
		if i%2 == 0 {
			continue
		}
		err := e.bounded("Subscribe", patience, n, func(ctx context.Context) error {
			return n.adapter.Subscribe(ctx, channel)
		})
		if err == nil {
			e.unsubscribe(n, channel)
		}
	}
	e.settle(from, stays, n)
	e.healthy(n)
	e.counted(from, stays, 1) // the subscriptions that the outage broke are gone too
	for _, channel := range channels[:18] {
		e.counted(from, channel, 0)
	}
	for _, channel := range channels[18:] {
		e.settle(from, channel, n)
		e.counted(from, channel, 1)
	}
}

// An elsewhere completes a PublishAsync, for which it needs a lock that the
// caller holds.
type elsewhere struct {
	env   *env
	held  chan struct{} // has a value while a goroutine has it
	stuck atomic.Bool
	done  atomic.Bool
}

func (c *elsewhere) Complete(int, error) {
	select {
	case c.held <- struct{}{}:
		<-c.held
	case <-time.After(5 * time.Second):
		c.stuck.Store(true)
	case <-c.env.ctx.Done():
		c.stuck.Store(true)
	}
	c.done.Store(true)
}

func asyncCompletesElsewhere(e *env) {
	from, to := e.nodes[0], e.nodes[1]
	channel := e.channel("room")
	e.join(channel, to)
	async := from.adapter.(adapter.AsyncPublisher)
	for i := range 20 {
		c := &elsewhere{env: e, held: make(chan struct{}, 1)}
		c.held <- struct{}{}
		began := async.PublishAsync(channel, fmt.Append(nil, i), c)
		<-c.held
		if !began {
			continue
		}
		e.until(c.done.Load, "Complete is called")
		if c.stuck.Load() {
			e.failf("PublishAsync waits for Complete, which waits for a lock that the caller of PublishAsync holds")
		}
	}
}

func asyncEndsInAnOutage(e *env) {
	n := e.nodes[1]
	async := n.adapter.(adapter.AsyncPublisher)
	const frames = 10
	for i := range frames {
		e.join(e.channel(fmt.Sprint("room", i)), n)
	}
	heal := e.cut(n)
	var begun, calls atomic.Int64
	for i := range frames {
		if async.PublishAsync(e.channel(fmt.Sprint("room", i)), []byte("frame"), counter{&calls}) {
			begun.Add(1)
		}
	}
	const few = 15 * time.Second
	if !e.soon(few, func() bool { return calls.Load() >= begun.Load() }) {
		e.failf("in an outage Complete was called for only %d of %d frames", calls.Load(), begun.Load())
	}
	heal()
}
