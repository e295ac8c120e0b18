package adaptertest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
)

var faultMutants = []mutant{
	{name: "never says Interrupted", fails: "broken-link-is-told", says: `"r`, faults: breaks, breakIt: neverInterrupted},
	{name: "never says Restored", fails: "broken-link-is-told", says: "gets Restored", also: []string{"history-fills-interruption"}, faults: breaks, breakIt: neverRestored},
	{name: "says Interrupted twice", fails: "broken-link-is-told", says: `"iir`, faults: breaks, breakIt: func(n *node) {
		n.hear.interrupted = func(next adapter.Receiver, channel string) {
			next.Interrupted(channel)
			next.Interrupted(channel)
		}
	}},
	{name: "says Restored twice", fails: "broken-link-is-told", says: `"irr`, faults: breaks, breakIt: func(n *node) {
		n.hear.restored = func(next adapter.Receiver, channel string) {
			next.Restored(channel)
			next.Restored(channel)
		}
	}},
	{name: "interrupts what was unsubscribed", fails: "broken-link-is-told", says: "had unsubscribed from", faults: breaks, breakIt: func(n *node) {
		var left string
		n.unsubscribe = func(ctx context.Context, channel string) error {
			n.mu.Lock()
			left = channel
			n.mu.Unlock()
			return n.Adapter.Unsubscribe(ctx, channel)
		}
		n.hear.interrupted = func(next adapter.Receiver, channel string) {
			next.Interrupted(channel)
			n.mu.Lock()
			defer n.mu.Unlock()
			if left != "" {
				next.Interrupted(left)
				left = ""
			}
		}
	}},
	{name: "restores four channels only", fails: "broken-link-heals", says: "does not receive", faults: breaks, breakIt: restoreFour},
	{name: "loses frames after Restored", fails: "broken-link-hides-no-loss", says: "without being told", faults: breaks, breakIt: loseAfterRestored},
	{name: "repeats a frame after Restored", fails: "broken-link-hides-no-loss", says: " times", faults: breaks, breakIt: func(n *node) {
		last := make(map[string][]byte) // only memory's reader uses it
		n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
			last[channel] = frame
			next.Receive(channel, frame)
		}
		n.hear.restored = func(next adapter.Receiver, channel string) {
			next.Restored(channel)
			if frame := last[channel]; frame != nil && !isProbe(frame) {
				next.Receive(channel, frame)
			}
		}
	}},
	{
		name: "says Interrupted too late", fails: "broken-link-hides-no-loss", says: "without being told",
		also:   []string{"broken-link-is-told", "history-fills-interruption"}, // nothing follows there
		faults: breaks, breakIt: tellLate,
	},
	{name: "never says Interrupted of an outage", fails: "outage-is-told", says: "told Interrupted", faults: cuts, breakIt: neverInterrupted},
	{name: "never says Restored of an outage", fails: "outage-is-told", says: "gets Restored", faults: cuts, breakIt: neverRestored},
	{name: "restores four channels after an outage", fails: "outage-heals", says: "does not receive", faults: cuts, breakIt: restoreFour},
	{name: "loses frames after an outage", fails: "outage-hides-no-loss", says: "without being told", faults: cuts, breakIt: loseAfterRestored},
	{name: "always healthy", fails: "outage-shows-in-health", says: "returns an error", faults: cuts, breakIt: func(n *node) {
		n.health = func() error { return nil }
	}},
	{
		name: "publishes nil while cut", fails: "outage-publish-tells-the-truth", says: "returned nil, but the frame was lost",
		also:   []string{"outage-hides-no-loss"}, // which says the same of running publishers
		faults: cuts,
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				count, err := n.Adapter.Publish(ctx, channel, frame)
				if errors.Is(err, memory.ErrCut) {
					return -1, nil
				}
				return count, err
			}
		},
	},
	{
		name: "sends what it says is unsent while cut", fails: "outage-publish-tells-the-truth", says: "the frame arrived, but",
		also:   []string{"outage-hides-no-loss"},
		faults: cuts,
		breakIt: func(n *node) {
			n.cutBy = n.CutInbound
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				count, err := n.Adapter.Publish(ctx, channel, frame)
				if errors.Is(err, memory.ErrCut) {
					return 0, fmt.Errorf("%w: %w", adapter.ErrUnsent, err)
				}
				return count, err
			}
		},
	},
	{name: "subscribe fails in an outage", fails: "outage-subscribe-waits", says: "want the error of its context", faults: cuts, breakIt: func(n *node) {
		n.subscribe = func(ctx context.Context, channel string) error {
			if n.isCut.Load() {
				return memory.ErrCut
			}
			return n.Adapter.Subscribe(ctx, channel)
		}
	}},
	{name: "subscribe in an outage has no deadline", fails: "outage-subscribe-waits", says: "does not end with its context", also: []string{"outage-leaves-no-subscription"}, faults: cuts, breakIt: func(n *node) {
		n.subscribe = func(ctx context.Context, channel string) error {
			if n.isCut.Load() {
				ctx = context.WithoutCancel(ctx)
			}
			return n.Adapter.Subscribe(ctx, channel)
		}
	}},
	{name: "interrupts what is not confirmed", fails: "outage-subscribe-waits", says: "was not confirmed", faults: cuts, breakIt: func(n *node) {
		n.subscribe = func(ctx context.Context, channel string) error {
			if n.isCut.Load() {
				n.target().Interrupted(channel)
				defer n.target().Restored(channel)
			}
			return n.Adapter.Subscribe(ctx, channel)
		}
	}},
	{name: "subscribes late what failed in an outage", fails: "outage-subscribe-waits", says: "is not subscribed", also: []string{"outage-leaves-no-subscription"}, faults: cuts, breakIt: func(n *node) {
		n.subscribe = func(ctx context.Context, channel string) error {
			err := n.Adapter.Subscribe(ctx, channel)
			if n.isCut.Load() && errors.Is(err, context.DeadlineExceeded) {
				n.own.Go(func() { _ = n.Adapter.Subscribe(context.WithoutCancel(ctx), channel) })
			}
			return err
		}
	}},
	{name: "unsubscribe is forgotten in an outage", fails: "outage-unsubscribe-holds", says: "is not subscribed", also: []string{"outage-leaves-no-subscription"}, faults: cuts, breakIt: func(n *node) {
		n.unsubscribe = func(ctx context.Context, channel string) error {
			if n.isCut.Load() {
				return memory.ErrCut
			}
			return n.Adapter.Unsubscribe(ctx, channel)
		}
	}},
	{name: "close leaves a subscribe waiting for the backend", fails: "outage-lets-close", says: "Subscribe returns when the adapter is closed", faults: cuts, breakIt: func(n *node) {
		n.subscribe = func(ctx context.Context, channel string) error {
			for n.isCut.Load() && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			return n.Adapter.Subscribe(ctx, channel)
		}
	}},
	{name: "close waits for the backend", fails: "outage-lets-close", says: "Close", faults: cuts, breakIt: func(n *node) {
		n.close = func(ctx context.Context) error {
			for n.isCut.Load() {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				time.Sleep(time.Millisecond)
			}
			return n.Adapter.Close(ctx)
		}
	}},
	{name: "moves in silence", fails: "move-hides-no-loss", says: "without being told", faults: moves, breakIt: silence},
	{name: "fails in silence", fails: "failed-home-hides-no-loss", says: "without being told", faults: fails, breakIt: silence},
}

func neverInterrupted(n *node) { n.hear.interrupted = func(adapter.Receiver, string) {} }
func neverRestored(n *node)    { n.hear.restored = func(adapter.Receiver, string) {} }

func silence(n *node) {
	neverInterrupted(n)
	neverRestored(n)
	n.hear.moving = func(adapter.HistoryReceiver, string) {}
}

// restoreFour receives only on some channels after the link is back, although
// it says Restored for all.
func restoreFour(n *node) {
	deaf := make(map[string]bool) // only memory's reader uses it
	n.hear.restored = func(next adapter.Receiver, channel string) {
		deaf[channel] = strings.Contains(channel, "room4")
		next.Restored(channel)
	}
	n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
		if !deaf[channel] {
			next.Receive(channel, frame)
		}
	}
}

// loseAfterRestored loses the second frame after each Restored.
func loseAfterRestored(n *node) {
	frames := make(map[string]int) // only memory's reader uses it
	n.hear.restored = func(next adapter.Receiver, channel string) {
		frames[channel] = 1
		next.Restored(channel)
	}
	n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
		if !isProbe(frame) && frames[channel] > 0 {
			if frames[channel]++; frames[channel] == 4 {
				return
			}
		}
		next.Receive(channel, frame)
	}
}

// tellLate says Interrupted and Restored after the first frame that follows the
// loss, which is too late.
func tellLate(n *node) {
	owed := make(map[string]bool) // only memory's reader uses it
	n.hear.interrupted = func(adapter.Receiver, string) {}
	n.hear.restored = func(_ adapter.Receiver, channel string) { owed[channel] = true }
	n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
		next.Receive(channel, frame)
		if owed[channel] && !isProbe(frame) {
			owed[channel] = false
			next.Interrupted(channel)
			next.Restored(channel)
		}
	}
}
