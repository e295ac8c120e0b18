package adaptertest_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

var subscriptionMutants = []mutant{
	{name: "subscribe returns too early", fails: "subscribed-means-subscribed", says: "after Subscribe had returned was lost", breakIt: subscribeEarly},
	{
		name: "delivers after Unsubscribe", fails: "unsubscribed-means-silent", says: "not subscribed", also: []string{"close-waits-for-the-call"},
		breakIt: func(n *node) { (&delayed{n: n, lateAfterUnsubscribe: true}).install() },
	},
	{
		name: "unsubscribe does not wait for the call", fails: "unsubscribe-waits-for-the-call", says: "Unsubscribe returned nil while",
		breakIt: func(n *node) {
			n.unsubscribe = func(ctx context.Context, channel string) error {
				ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
				if err := n.Adapter.Unsubscribe(ctx, channel); !errors.Is(err, context.DeadlineExceeded) {
					return err
				}
				return nil
			}
		},
	},
	{name: "retains the last frame", fails: "resubscribe-hears-the-new-only", says: "from before", breakIt: retain},
	{
		name: "counts subscriptions", fails: "subscriptions-do-not-add-up", says: "is not subscribed",
		breakIt: func(n *node) {
			var mu sync.Mutex
			subscribed := make(map[string]int)
			n.subscribe = func(ctx context.Context, channel string) error {
				err := n.Adapter.Subscribe(ctx, channel)
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					subscribed[channel]++
				}
				return err
			}
			n.unsubscribe = func(ctx context.Context, channel string) error {
				mu.Lock()
				subscribed[channel]--
				left := subscribed[channel]
				mu.Unlock()
				if left > 0 {
					return nil
				}
				return n.Adapter.Unsubscribe(ctx, channel)
			}
		},
	},
	{
		name: "delivers once for each subscribe", fails: "subscriptions-do-not-add-up", says: "3 times",
		breakIt: func(n *node) {
			n.subscribe = func(ctx context.Context, channel string) error {
				n.tally(channel)
				return n.Adapter.Subscribe(ctx, channel)
			}
			n.unsubscribe = func(ctx context.Context, channel string) error {
				n.reset(channel)
				return n.Adapter.Unsubscribe(ctx, channel)
			}
			n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
				n.mu.Lock()
				times := n.counts[channel]
				n.mu.Unlock()
				for range times {
					next.Receive(channel, frame)
				}
			}
		},
	},
	{
		name: "unsubscribe wants a subscription", fails: "subscriptions-do-not-add-up", says: "never was subscribed",
		breakIt: func(n *node) {
			n.unsubscribe = func(ctx context.Context, channel string) error {
				if n.world.bus.Subscribers(channel) == 0 && n.Adapter.Health() == nil {
					return errors.New("not subscribed")
				}
				return n.Adapter.Unsubscribe(ctx, channel)
			}
		},
	},
	{
		name: "subscribes though it failed", fails: "subscribe-obeys-context", says: "is not subscribed", also: []string{"unsubscribe-reaches-the-backend", "failed-subscribe-ends-the-subscription"},
		breakIt: func(n *node) {
			n.subscribe = func(ctx context.Context, channel string) error {
				err := n.Adapter.Subscribe(ctx, channel)
				if errors.Is(err, context.DeadlineExceeded) {
					_ = n.Adapter.Subscribe(context.WithoutCancel(ctx), channel)
				}
				return err
			}
		},
	},
	{
		name: "a failed subscribe blocks the next", fails: "subscribe-obeys-context", says: "does not receive", also: []string{"failed-subscribe-ends-the-subscription"},
		breakIt: func(n *node) {
			var failed sync.Map
			n.subscribe = func(ctx context.Context, channel string) error {
				if _, ok := failed.Load(channel); ok {
					return nil
				}
				err := n.Adapter.Subscribe(ctx, channel)
				if errors.Is(err, context.DeadlineExceeded) {
					failed.Store(channel, true)
				}
				return err
			}
		},
	},
	{
		name: "deaf by churn", fails: "churn-ends-subscribed", says: "does not receive",
		breakIt: func(n *node) {
			n.subscribe = func(ctx context.Context, channel string) error {
				if n.tally(channel) > 5 && n.Adapter.Health() == nil {
					return nil
				}
				return n.Adapter.Subscribe(ctx, channel)
			}
		},
	},
	{
		name: "never silent after churn", fails: "churn-ends-silent", says: "is not subscribed",
		breakIt: func(n *node) {
			n.unsubscribe = func(ctx context.Context, channel string) error {
				if n.tally(channel) > 5 {
					return nil
				}
				return n.Adapter.Unsubscribe(ctx, channel)
			}
		},
	},
	{
		name: "hears a thousand channels at most", fails: "many-channels", says: "does not receive",
		breakIt: func(n *node) {
			n.subscribe = func(ctx context.Context, channel string) error {
				if n.tally("all") > 1000 && n.Adapter.Health() == nil {
					return nil
				}
				return n.Adapter.Subscribe(ctx, channel)
			}
		},
	},
	{
		name: "always ill", fails: "healthy-when-confirmed", says: "not feeling well",
		breakIt: func(n *node) {
			n.health = func() error { return errors.New("not feeling well") }
		},
	},
}

// subscribeEarly subscribes after it has returned. Other calls for the channel
// wait for that.
func subscribeEarly(n *node) {
	var running gate // read-locked by goroutines in the background
	var mu sync.Mutex
	pending := make(map[string]chan struct{})
	await := func(channel string) {
		mu.Lock()
		p := pending[channel]
		mu.Unlock()
		if p != nil {
			<-p
		}
	}
	n.subscribe = func(_ context.Context, channel string) error {
		await(channel)
		if err := n.Adapter.Health(); errors.Is(err, adapter.ErrClosed) {
			return err
		}
		p := make(chan struct{})
		mu.Lock()
		pending[channel] = p
		mu.Unlock()
		running.RLock()
		go func() {
			defer running.RUnlock()
			defer close(p)
			time.Sleep(5 * time.Millisecond)
			_ = n.Adapter.Subscribe(context.Background(), channel)
		}()
		return nil
	}
	n.unsubscribe = func(ctx context.Context, channel string) error {
		await(channel)
		return n.Adapter.Unsubscribe(ctx, channel)
	}
	n.close = func(ctx context.Context) error {
		defer func() {
			running.Lock()
			defer running.Unlock()
		}()
		return n.Adapter.Close(ctx)
	}
}

// retained is the last frame of each channel.
type retained struct {
	mu     sync.Mutex
	frames map[string][]byte
}

// retain sends the last frame of a channel to each new subscription.
func retain(n *node) {
	r := &n.world.retained
	n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
		if !isProbe(frame) {
			r.mu.Lock()
			if r.frames == nil {
				r.frames = make(map[string][]byte)
			}
			r.frames[channel] = frame
			r.mu.Unlock()
		}
		return n.Adapter.Publish(ctx, channel, frame)
	}
	n.subscribe = func(ctx context.Context, channel string) error {
		r.mu.Lock()
		frame := r.frames[channel]
		r.mu.Unlock()
		if frame != nil && n.tally(channel) > 1 {
			n.target().Receive(channel, frame)
		}
		return n.Adapter.Subscribe(ctx, channel)
	}
}

// delayed keeps each frame for some milliseconds in a queue of its own, as a
// connection does, and does not always check whether it is still wanted.
type delayed struct {
	n                    *node
	lateAfterUnsubscribe bool
	lateAfterClose       bool

	mu     gate // held in calls of the receiver
	gone   map[string]bool
	closed bool
	queue  chan func()
}

func (d *delayed) install() {
	n := d.n
	d.gone = make(map[string]bool)
	d.queue = make(chan func(), 1<<16)
	n.attach = func(r adapter.Receiver) error {
		n.own.Go(d.deliver)
		return n.Adapter.Attach(n.listener(r))
	}
	n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
		due := time.Now().Add(5 * time.Millisecond)
		d.queue <- func() {
			time.Sleep(time.Until(due))
			d.mu.Lock()
			defer d.mu.Unlock()
			if (!d.closed || d.lateAfterClose) && (!d.gone[channel] || d.lateAfterUnsubscribe) {
				next.Receive(channel, frame)
			}
		}
	}
	n.subscribe = func(ctx context.Context, channel string) error {
		d.set(func() { delete(d.gone, channel) })
		return n.Adapter.Subscribe(ctx, channel)
	}
	n.unsubscribe = func(ctx context.Context, channel string) error {
		err := n.Adapter.Unsubscribe(ctx, channel)
		d.set(func() { d.gone[channel] = true })
		return err
	}
	n.close = func(ctx context.Context) error {
		err := n.Adapter.Close(ctx)
		d.set(func() {
			if !d.closed {
				d.closed = true
				close(d.queue)
			}
		})
		if !d.lateAfterClose && n.target() != nil {
			n.own.Wait()
		}
		return err
	}
}

func (d *delayed) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *delayed) deliver() {
	for f := range d.queue {
		f()
	}
}
