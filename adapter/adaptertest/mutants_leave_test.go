package adaptertest_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

var leaveMutants = []mutant{
	{
		name: "leaves a subscription behind", fails: "unsubscribe-reaches-the-backend", says: "the backend counts 0",
		also: []string{"broken-link-leaves-no-subscription", "outage-leaves-no-subscription"},
		breakIt: func(n *node) {
			g := n.world.haunted(n)
			n.unsubscribe = func(ctx context.Context, channel string) error {
				if n.tally(channel) == 1 {
					g.add(channel)
				}
				return n.Adapter.Unsubscribe(ctx, channel)
			}
		},
	},
	{
		name: "leaves a failed subscription behind", fails: "unsubscribe-reaches-the-backend", says: "the backend counts 0",
		also: []string{"outage-leaves-no-subscription"},
		breakIt: func(n *node) {
			g := n.world.haunted(n)
			n.subscribe = func(ctx context.Context, channel string) error {
				err := n.Adapter.Subscribe(ctx, channel)
				if errors.Is(err, context.DeadlineExceeded) && n.tally(channel) == 1 {
					g.add(channel)
				}
				return err
			}
		},
	},
	{
		name: "unsubscribe waits for the backend", fails: "outage-leaves-no-subscription", says: "does not end with its context",
		also:   []string{"outage-unsubscribe-holds"},
		faults: cuts,
		breakIt: func(n *node) {
			n.unsubscribe = func(ctx context.Context, channel string) error {
				for n.isCut.Load() && !errors.Is(n.Adapter.Health(), adapter.ErrClosed) {
					time.Sleep(time.Millisecond)
				}
				return n.Adapter.Unsubscribe(ctx, channel)
			}
		},
	},
	{
		name: "a subscribe that failed leaves what was there", fails: "failed-subscribe-ends-the-subscription", says: "is not subscribed",
		breakIt: func(n *node) {
			confirmed := make(map[string]bool)
			var mu sync.Mutex
			set := func(channel string, is bool) {
				mu.Lock()
				defer mu.Unlock()
				confirmed[channel] = is
			}
			n.subscribe = func(ctx context.Context, channel string) error {
				mu.Lock()
				was := confirmed[channel]
				mu.Unlock()
				if was && ctx.Err() != nil {
					return ctx.Err()
				}
				err := n.Adapter.Subscribe(ctx, channel)
				set(channel, err == nil)
				return err
			}
			n.unsubscribe = func(ctx context.Context, channel string) error {
				set(channel, false)
				return n.Adapter.Unsubscribe(ctx, channel)
			}
		},
	},
	{
		name: "says Restored for each subscribe", fails: "notices-alternate", says: `"rr`,
		also: []string{"broken-link-is-told", "outage-is-told", "outage-subscribe-waits", "moving-is-followed-by-restored"},
		breakIt: func(n *node) {
			n.subscribe = func(ctx context.Context, channel string) error {
				err := n.Adapter.Subscribe(ctx, channel)
				if err == nil {
					n.target().Restored(channel)
				}
				return err
			}
		},
	},
	{
		name: "the second Close does not wait", fails: "close-waits-for-the-call", says: "Close returned nil while",
		breakIt: func(n *node) {
			n.close = func(ctx context.Context) error {
				if n.tally("close") > 1 {
					return nil
				}
				return n.Adapter.Close(ctx)
			}
		},
	},
	{
		name: "close has no deadline", fails: "close-waits-for-the-call", says: "does not end with its context",
		breakIt: func(n *node) {
			n.close = func(ctx context.Context) error { return n.Adapter.Close(context.WithoutCancel(ctx)) }
		},
	},
	{
		name: "a close that ran out of time returns nil", fails: "close-waits-for-the-call", says: "whose context ended returned",
		breakIt: func(n *node) {
			n.close = func(ctx context.Context) error {
				err := n.Adapter.Close(ctx)
				if errors.Is(err, context.DeadlineExceeded) {
					return nil
				}
				return err
			}
		},
	},
	{
		name: "a subscribe sent again overtakes an unsubscribe", fails: "broken-link-leaves-no-subscription", says: "the backend counts",
		faults: breaks, breakIt: subscribeAgain,
	},
	{
		name: "a subscribe sent again after an outage overtakes an unsubscribe", fails: "outage-leaves-no-subscription", says: "the backend counts",
		faults: cuts, breakIt: subscribeAgain,
	},
	{
		name: "counts itself twice after a broken link", fails: "broken-link-leaves-no-subscription", says: "the backend counts",
		faults: breaks, breakIt: func(n *node) {
			g := n.world.haunted(n)
			n.hear.restored = func(next adapter.Receiver, channel string) {
				g.add(channel)
				next.Restored(channel)
			}
		},
	},
	{
		name: "completes while it is called", fails: "async-completes-elsewhere", says: "waits for Complete",
		breakIt: func(n *node) {
			n.publishAsync = func(channel string, frame []byte, done adapter.Completion) bool {
				c := make(chan struct{})
				if !n.Adapter.PublishAsync(channel, frame, completion(func(receivers int, err error) {
					done.Complete(receivers, err)
					close(c)
				})) {
					return false
				}
				if isProbe(frame) || n.tally(channel)%50 != 1 {
					return true
				}
				<-c
				return true
			}
		},
	},
	{
		name: "waits for the end of an outage", fails: "async-ends-in-an-outage", says: "in an outage Complete was called",
		also:   []string{"outage-hides-no-loss", "outage-publish-tells-the-truth", "history-fills-interruption"},
		faults: cuts,
		breakIt: func(n *node) {
			n.publishAsync = func(channel string, frame []byte, done adapter.Completion) bool {
				return n.Adapter.PublishAsync(channel, frame, completion(func(receivers int, err error) {
					for n.isCut.Load() && !errors.Is(n.Adapter.Health(), adapter.ErrClosed) {
						time.Sleep(time.Millisecond)
					}
					done.Complete(receivers, err)
				}))
			}
		},
	},
}

// subscribeAgain subscribes, when a link comes back, to all channels that were
// subscribed when it broke, even if they have been unsubscribed meanwhile.
func subscribeAgain(n *node) {
	g := n.world.haunted(n)
	var mu sync.Mutex
	broken := make(map[string]bool)
	n.hear.interrupted = func(next adapter.Receiver, channel string) {
		mu.Lock()
		broken[channel] = true
		mu.Unlock()
		next.Interrupted(channel)
	}
	n.hear.restored = func(next adapter.Receiver, channel string) {
		mu.Lock()
		delete(broken, channel)
		mu.Unlock()
		next.Restored(channel)
	}
	n.unsubscribe = func(ctx context.Context, channel string) error {
		mu.Lock()
		was := broken[channel]
		delete(broken, channel)
		mu.Unlock()
		if was {
			g.add(channel)
		}
		return n.Adapter.Unsubscribe(ctx, channel)
	}
}

// haunted has the node count ghosts among the receivers.
func (w *world) haunted(n *node) *ghosts {
	g := &w.ghosts
	n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
		count, err := n.Adapter.Publish(ctx, channel, frame)
		if err == nil && count >= 0 {
			count += g.of(channel)
		}
		return count, err
	}
	return g
}

// add adds a ghost to a channel.
func (g *ghosts) add(channel string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := maps.Clone(g.channels)
	if m == nil {
		m = make(map[string]int)
	}
	m[channel]++
	g.channels = m
}

// of returns how many ghosts a channel has.
func (g *ghosts) of(channel string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.channels[channel]
}
