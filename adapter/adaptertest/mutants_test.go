package adaptertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// A mutant is a way to break an adapter.
type mutant struct {
	name    string
	fails   string   // the case that must fail
	also    []string // other cases that must fail too
	says    string   // part of the failure
	faults  faults   // what the backend offers
	history bool     // it breaks only what a Historian adds
	breakIt func(n *node)
}

type faults uint8

const (
	breaks faults = 1 << iota
	cuts
	moves
	fails
)

var mutants = slices.Concat(deliveryMutants, asyncMutants, subscriptionMutants, closeMutants, leaveMutants, faultMutants, historyMutants)

var deliveryMutants = []mutant{
	{
		name: "attaches twice", fails: "attach-once", says: "second Attach returned nil",
		breakIt: func(n *node) {
			n.attach = func(r adapter.Receiver) error {
				if n.tally("attach") > 1 && n.Adapter.Health() == nil {
					return nil
				}
				return n.Adapter.Attach(r)
			}
		},
	},
	{
		name: "attach replaces the receiver", fails: "attach-once", says: "does not receive",
		breakIt: func(n *node) {
			n.attach = func(r adapter.Receiver) error {
				err := n.Adapter.Attach(n.listener(r))
				n.hear.receive = func(_ adapter.Receiver, channel string, frame []byte) { r.Receive(channel, frame) }
				return err
			}
		},
	},
	{
		name: "drops a frame", fails: "delivers-to-all", says: "did not receive",
		also: []string{"async-completes-once"},
		breakIt: func(n *node) {
			n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
				if isProbe(frame) || n.tally(channel) != 7 {
					next.Receive(channel, frame)
				}
			}
		},
	},
	{
		name: "has no echo", fails: "delivers-to-all", says: "did not receive",
		breakIt: func(n *node) {
			var mine sync.Map
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				mine.Store(channel+string(frame), true)
				return n.Adapter.Publish(ctx, channel, frame)
			}
			n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
				if _, ok := mine.Load(channel + string(frame)); !ok || isProbe(frame) {
					next.Receive(channel, frame)
				}
			}
		},
	},
	{
		name: "repeats a frame", fails: "delivers-once", says: "2 times",
		also: []string{"async-completes-once"},
		breakIt: func(n *node) {
			n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
				next.Receive(channel, frame)
				if !isProbe(frame) && n.tally(channel) == 7 {
					next.Receive(channel, frame)
				}
			}
		},
	},
	{
		name: "hears what it is not subscribed to", fails: "publisher-need-not-subscribe", says: "not subscribed",
		breakIt: func(n *node) {
			var subscribed sync.Map
			n.subscribe = func(ctx context.Context, channel string) error {
				subscribed.Store(channel, true)
				return n.Adapter.Subscribe(ctx, channel)
			}
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				count, err := n.Adapter.Publish(ctx, channel, frame)
				if _, ok := subscribed.Load(channel); !ok && !isProbe(frame) && err == nil {
					n.target().Receive(channel, frame)
				}
				return count, err
			}
		},
	},
	{
		name: "takes names for patterns", fails: "names-are-opaque", says: "received",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				for _, pattern := range n.world.bus.Channels() {
					if ok, _ := path.Match(pattern, channel); ok && pattern != channel {
						_, _ = n.Adapter.Publish(ctx, pattern, frame)
					}
				}
				return n.Adapter.Publish(ctx, channel, frame)
			}
		},
	},
	{
		name: "takes names for prefixes", fails: "names-are-opaque", says: "received",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				for _, longer := range n.world.bus.Channels() {
					if strings.HasPrefix(longer, channel) && longer != channel {
						_, _ = n.Adapter.Publish(ctx, longer, frame)
					}
				}
				return n.Adapter.Publish(ctx, channel, frame)
			}
		},
	},
	{
		name: "cuts long names", fails: "names-are-opaque", says: "receive",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				return n.Adapter.Publish(ctx, channel[:min(len(channel), 255)], frame)
			}
		},
	},
	{
		name: "ends frames at NUL", fails: "frames-are-opaque", says: "published 1 bytes",
		breakIt: func(n *node) {
			n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
				if !isProbe(frame) {
					frame, _, _ = bytes.Cut(frame, []byte{0})
				}
				next.Receive(channel, frame)
			}
		},
	},
	{
		name: "refuses empty frames", fails: "frames-are-opaque", says: "0 bytes",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				if len(frame) == 0 {
					return 0, errors.New("nothing to publish")
				}
				return n.Adapter.Publish(ctx, channel, frame)
			}
		},
	},
	{
		name: "uses its buffer again", fails: "frames-are-kept", says: "later became",
		breakIt: func(n *node) {
			buffer := make([]byte, 2<<20)
			n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
				if !isProbe(frame) {
					frame = buffer[:copy(buffer, frame)]
				}
				next.Receive(channel, frame)
			}
		},
	},
	{
		name: "writes behind the frame", fails: "frames-are-kept", says: "changed what was published",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				line := append(frame, "\r\n"...)
				return n.Adapter.Publish(ctx, channel, line[:len(frame)])
			}
		},
	},
	{
		name: "counts wrong", fails: "receivers-are-counted", says: "Publish returned 2",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				count, err := n.Adapter.Publish(ctx, channel, frame)
				return min(count, 2), err
			}
		},
	},
	{
		name: "loses what is published too late", fails: "publish-obeys-context", says: "was lost",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				count, err := n.Adapter.Publish(ctx, channel, frame)
				if ctx.Err() != nil && !errors.Is(err, adapter.ErrClosed) {
					return -1, nil
				}
				return count, err
			}
		},
	},
	{
		name: "sends what it says is unsent", fails: "publish-obeys-context", says: "the frame arrived, but",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				count, err := n.Adapter.Publish(context.WithoutCancel(ctx), channel, frame)
				if err == nil && ctx.Err() != nil {
					err = fmt.Errorf("%w: %w", adapter.ErrUnsent, ctx.Err())
				}
				return count, err
			}
		},
	},
	{name: "swaps two frames", fails: "publisher-order", says: "than it was published", also: []string{"async-completes-once"}, breakIt: swapTwo},
	{name: "has an order of its own", fails: "one-order", says: "than node", breakIt: ownOrder},
	{name: "calls before the last call is over", fails: "calls-do-not-overlap", says: "while another one was running", also: []string{"close-waits-for-the-call"}, breakIt: overlap},
	{
		name: "waits for slow receivers", fails: "slow-receiver-delays-no-other", says: "does not receive",
		breakIt: func(n *node) {
			n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
				n.world.slow.Lock()
				defer n.world.slow.Unlock()
				next.Receive(channel, frame)
			}
		},
	},
	{
		name: "lets the publisher wait for receivers", fails: "slow-receiver-delays-no-other", says: "Publish",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				count, err := n.Adapter.Publish(ctx, channel, frame)
				for !n.world.slow.TryLock() {
					if ctx.Err() != nil {
						return count, ctx.Err()
					}
					time.Sleep(100 * time.Microsecond)
				}
				n.world.slow.Unlock()
				return count, err
			}
			n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
				if n.index == 1 {
					n.world.slow.Lock()
					defer n.world.slow.Unlock()
				}
				next.Receive(channel, frame)
			}
		},
	},
}

// slow is a lock that all nodes wait for.
type slow struct{ gate }

// swapTwo sends the tenth frame of a channel after the eleventh.
func swapTwo(n *node) {
	held := make(map[string][]byte)
	var mu sync.Mutex
	n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
		mu.Lock()
		before, ok := held[channel]
		delete(held, channel)
		if !isProbe(frame) && !ok && n.tally(channel) == 10 && ctx.Err() == nil {
			held[channel] = frame
			mu.Unlock()
			return -1, nil
		}
		mu.Unlock()
		count, err := n.Adapter.Publish(ctx, channel, frame)
		if ok {
			_, _ = n.Adapter.Publish(context.WithoutCancel(ctx), channel, before)
		}
		return count, err
	}
}

// ownOrder delivers, on one node, a frame after the next one if they are of
// different publishers, so that each publisher's order is kept.
func ownOrder(n *node) {
	if n.index != 1 {
		return
	}
	publisher := func(frame []byte) string {
		_, p, _ := strings.Cut(string(frame), " of ")
		return p
	}
	held := make(map[string][]byte) // only memory's reader uses it
	n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
		before, ok := held[channel]
		delete(held, channel)
		switch {
		case ok && publisher(frame) != publisher(before) && !isProbe(frame):
			next.Receive(channel, frame)
			next.Receive(channel, before)
		case ok && !isProbe(frame):
			next.Receive(channel, before)
			held[channel] = frame
		case ok:
			next.Receive(channel, before)
			next.Receive(channel, frame)
		case publisher(frame) != "":
			held[channel] = frame
		default:
			next.Receive(channel, frame)
		}
	}
}

// overlap makes the next call without waiting for the end of a long one.
func overlap(n *node) {
	var running gate // read-locked by each call
	n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
		if string(frame) != "a long call" {
			next.Receive(channel, frame)
			return
		}
		running.RLock()
		go func() {
			defer running.RUnlock()
			next.Receive(channel, frame)
		}()
	}
	await := func() {
		running.Lock()
		defer running.Unlock()
	}
	n.unsubscribe = func(ctx context.Context, channel string) error {
		defer await()
		return n.Adapter.Unsubscribe(ctx, channel)
	}
	n.close = func(ctx context.Context) error {
		defer await()
		return n.Adapter.Close(ctx)
	}
}

var closeMutants = []mutant{
	{
		name: "delivers after Close", fails: "close-is-silent", says: "is closed, but its receiver", also: []string{"close-waits-for-the-call"},
		breakIt: func(n *node) { (&delayed{n: n, lateAfterClose: true}).install() },
	},
	{
		name: "publish after Close is not unsent", fails: "close-is-final", says: "Publish after Close",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				count, err := n.Adapter.Publish(ctx, channel, frame)
				if errors.Is(err, adapter.ErrClosed) {
					err = adapter.ErrClosed
				}
				return count, err
			}
		},
	},
	{
		name: "subscribes after Close", fails: "close-is-final", says: "Subscribe after Close",
		also: []string{"close-under-traffic"},
		breakIt: func(n *node) {
			n.subscribe = func(ctx context.Context, channel string) error {
				err := n.Adapter.Subscribe(ctx, channel)
				if errors.Is(err, adapter.ErrClosed) {
					return nil
				}
				return err
			}
		},
	},
	{
		name: "closes only once", fails: "close-twice", says: "closed already",
		also: []string{"close-waits-for-the-call"},
		breakIt: func(n *node) {
			n.close = func(ctx context.Context) error {
				if n.tally("close") > 1 {
					return errors.New("closed already")
				}
				return n.Adapter.Close(ctx)
			}
		},
	},
	{
		name: "does not close what was not attached", fails: "close-twice", says: "never attached",
		breakIt: func(n *node) {
			n.close = func(ctx context.Context) error {
				if n.target() == nil {
					return errors.New("never attached")
				}
				return n.Adapter.Close(ctx)
			}
		},
	},
	{
		name: "a call is ended by the wrong error", fails: "close-under-traffic", says: "EOF",
		breakIt: func(n *node) {
			n.subscribe = func(ctx context.Context, channel string) error {
				if err := n.Adapter.Subscribe(ctx, channel); err != nil {
					return err
				}
				if n.closesWhileSubscribing(channel) {
					return errors.New("EOF")
				}
				return nil
			}
		},
	},
	{
		name: "leaves calls waiting", fails: "close-under-traffic", says: "calls of a closed adapter return",
		breakIt: func(n *node) {
			n.subscribe = func(ctx context.Context, channel string) error {
				if err := n.Adapter.Subscribe(ctx, channel); err != nil {
					return err
				}
				if n.closesWhileSubscribing(channel) {
					<-ctx.Done()
				}
				return nil
			}
		},
	},
	{name: "stays subscribed when closed", fails: "close-leaves-no-subscription", says: "nobody is subscribed", breakIt: haunt},
	{
		name: "leaves a goroutine", fails: "close-leaves-no-goroutine", says: "still run",
		breakIt: func(n *node) {
			n.attach = func(r adapter.Receiver) error {
				n.own.Go(func() { <-n.done })
				return n.Adapter.Attach(r)
			}
		},
	},
}

// closesWhileSubscribing is a slow server that resubscribes channels with an
// odd number. It answers after a while, or with an error when the adapter is
// closed.
func (n *node) closesWhileSubscribing(channel string) bool {
	odd := strings.ContainsAny(channel[len(channel)-2:], "13579")
	if !odd || n.tally(channel) < 2 {
		return false
	}
	for range 100 {
		if n.Adapter.Health() != nil {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// ghosts are the subscriptions of closed adapters.
type ghosts struct {
	mu       sync.Mutex
	channels map[string]int
}

// haunt has the backend count adapters that are closed.
func haunt(n *node) {
	g := n.world.haunted(n)
	n.close = func(ctx context.Context) error {
		for _, channel := range n.world.bus.Channels() {
			g.add(channel)
		}
		return n.Adapter.Close(ctx)
	}
}

var asyncMutants = []mutant{
	{
		name: "completes twice", fails: "async-completes-once", says: "more often than",
		breakIt: func(n *node) {
			n.publishAsync = func(channel string, frame []byte, done adapter.Completion) bool {
				if isProbe(frame) || n.tally(channel) != 7 {
					return n.Adapter.PublishAsync(channel, frame, done)
				}
				return n.Adapter.PublishAsync(channel, frame, completions{done, done})
			}
		},
	},
	{
		name: "loses count of receivers", fails: "async-completes-once", says: "1 receiver or -1",
		also: []string{"receivers-are-counted"},
		breakIt: func(n *node) {
			n.publishAsync = func(channel string, frame []byte, done adapter.Completion) bool {
				return n.Adapter.PublishAsync(channel, frame, completion(func(_ int, err error) { done.Complete(0, err) }))
			}
		},
	},
	{
		name: "closes before it completes", fails: "async-ends-with-close", says: "Close has returned",
		breakIt: func(n *node) {
			n.publishAsync = func(channel string, frame []byte, done adapter.Completion) bool {
				late := completion(func(receivers int, err error) {
					n.own.Go(func() {
						select {
						case <-time.After(5 * time.Millisecond):
						case <-n.done:
						}
						done.Complete(receivers, err)
					})
				})
				return n.Adapter.PublishAsync(channel, frame, late)
			}
		},
	},
	{
		name: "accepts after Close", fails: "async-ends-with-close", says: "returned true",
		breakIt: func(n *node) {
			n.publishAsync = func(channel string, frame []byte, done adapter.Completion) bool {
				if !n.Adapter.PublishAsync(channel, frame, done) {
					n.own.Go(func() { done.Complete(0, fmt.Errorf("%w: %w", adapter.ErrClosed, adapter.ErrUnsent)) })
				}
				return true
			}
		},
	},
}

type completions []adapter.Completion

func (all completions) Complete(receivers int, err error) {
	for _, c := range all {
		c.Complete(receivers, err)
	}
}

type completion func(receivers int, err error)

func (f completion) Complete(receivers int, err error) { f(receivers, err) }
