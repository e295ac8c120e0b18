package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

var closeCases = []Case{
	{
		Name:        "close-is-silent",
		Explanation: "When Close has returned nil the receiver is not called again.",
		Nodes:       3, run: closeIsSilent,
	},
	{
		Name:        "close-is-final",
		Explanation: "After Close all methods return an error that wraps ErrClosed; that of Publish wraps ErrUnsent as well.",
		Nodes:       1, run: closeIsFinal,
	},
	{
		Name:        "close-twice",
		Explanation: "A second Close waits for the first and returns nil. Close of an adapter that was not attached returns nil too.",
		Nodes:       2, unattached: true, run: closeTwice,
	},
	{
		Name:        "close-under-traffic",
		Explanation: "When Close returns nil, calls that were waiting have returned. A Subscribe that Close has ended returns ErrClosed.",
		Nodes:       2, run: closeUnderTraffic,
	},
	{
		Name:        "close-leaves-no-subscription",
		Explanation: "Close ends the subscriptions of the adapter: the backend no longer counts them.",
		Nodes:       2, run: closeLeavesNoSubscription,
	},
	{
		Name:        "close-leaves-no-goroutine",
		Explanation: "Close waits for the adapter's own goroutines.",
		Nodes:       2, run: closeLeavesNoGoroutine,
	},
}

func (e *env) close(n *node) {
	e.must(n.adapter.Close(e.ctx), "%v: Close", n)
}

func closeIsSilent(e *env) {
	from, n, witness := e.nodes[0], e.nodes[1], e.nodes[2]
	channel := e.channel("room")
	e.join(channel, n, witness)
	stop := e.stream(from, channel)
	e.until(func() bool { return len(n.heard.frames(channel)) > 0 }, "%v receives", n)
	e.close(n)
	calls := n.heard.calls(channel)
	stop()
	for range 5 {
		e.settle(from, channel, witness)
	}
	if events := n.heard.events(channel); len(events) > calls {
		e.failf("%v is closed, but its receiver was called: %q", n, events[calls:])
	}
}

func closeIsFinal(e *env) {
	n := e.nodes[0]
	channel := e.channel("room")
	e.join(channel, n)
	e.close(n)
	if err := n.adapter.Subscribe(e.ctx, channel); !errors.Is(err, adapter.ErrClosed) {
		e.failf("Subscribe after Close: %v", err)
	}
	if err := n.adapter.Unsubscribe(e.ctx, channel); err != nil && !errors.Is(err, adapter.ErrClosed) {
		e.failf("Unsubscribe after Close: %v", err)
	}
	if err := n.adapter.Attach(n.heard); !errors.Is(err, adapter.ErrClosed) {
		e.failf("Attach after Close: %v", err)
	}
	ended, cancel := context.WithCancel(e.ctx)
	cancel()
	for _, ctx := range []context.Context{e.ctx, ended} {
		_, err := n.publish(ctx, channel, "frame")
		if !errors.Is(err, adapter.ErrClosed) || !errors.Is(err, adapter.ErrUnsent) {
			e.failf("Publish after Close: %v", err)
		}
	}
}

func closeTwice(e *env) {
	used, unused := e.nodes[0], e.nodes[1]
	e.must(used.adapter.Attach(used.heard), "Attach")
	e.join(e.channel("room"), used)
	for _, n := range []*node{used, unused} {
		e.all(4, func(int) error { return n.adapter.Close(e.ctx) })
		e.must(n.adapter.Close(e.ctx), "%v: Close of what is closed", n)
	}
}

func closeUnderTraffic(e *env) {
	other, n := e.nodes[0], e.nodes[1]
	const users = 8
	var tasks []*task
	for i := range users {
		e.join(e.channel(fmt.Sprint("room", i)), other)
	}
	for i := range users {
		channel := e.channel(fmt.Sprint("room", i))
		tasks = append(tasks, e.start(func() error { return e.useUntilClosed(n, channel) }))
	}
	// All goroutines are at work, and some have been for a while.
	const total = 100
	e.until(func() bool {
		least, sum := total, 0
		for i := range users {
			heard := other.heard.count(e.channel(fmt.Sprint("room", i)), "traffic")
			least, sum = min(least, heard), sum+heard
		}
		return least > 0 && sum >= total
	}, "%v receives the traffic of %v", other, n)
	e.close(n)
	for _, t := range tasks {
		e.must(e.wait(t, "calls of a closed adapter return"), "when the adapter was closed")
	}
}

// useUntilClosed subscribes, publishes and unsubscribes until it gets
// ErrClosed. It returns other errors of Subscribe.
func (e *env) useUntilClosed(n *node, channel string) error {
	for e.ctx.Err() == nil {
		if err := n.adapter.Subscribe(e.ctx, channel); errors.Is(err, adapter.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("error of Subscribe: %w", err)
		}
		_, _ = n.publish(e.ctx, channel, "traffic") // may fail in any way
		_ = n.adapter.Unsubscribe(e.ctx, channel)
		select {
		case <-time.After(time.Millisecond):
		case <-e.ctx.Done():
		}
	}
	return errors.New("no Subscribe returned ErrClosed")
}

func closeLeavesNoSubscription(e *env) {
	from, n := e.nodes[0], e.nodes[1]
	channel := e.channel("room")
	e.join(channel, n)
	e.close(n)
	last := 0
	e.until(func() bool {
		var err error
		last, err = from.publish(e.ctx, channel, "anybody?")
		return err == nil && last <= 0
	}, "nobody is subscribed to the channel of a closed adapter")
}

func closeLeavesNoGoroutine(e *env) {
	channel := e.channel("room")
	e.join(channel, e.nodes...)
	for i := range 20 {
		e.join(e.channel(fmt.Sprint("room", i)), e.nodes[i%2])
	}
	stop := e.stream(e.nodes[0], channel)
	e.settle(e.nodes[1], channel, e.nodes...)
	stop()
	for _, n := range e.nodes {
		e.close(n)
	}
	// A goroutine may still be returning after it has told Close that it ends.
	if !e.soon(2*time.Second, func() bool { return len(e.leaked()) == 0 }) {
		stacks := e.leaked()
		e.failf("after Close %d goroutines still run (stacks, each with the number of those that share it):\n\n%s",
			len(stacks), stacks)
	}
}
