package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// An env is what a case works with. Its methods that cannot do what they are
// for end the case, as those of testing.T do; they must be called on the
// case's own goroutine. Others are said to be for any.
type env struct {
	ctx    context.Context
	cancel context.CancelFunc
	id     string
	nodes  []*node
	offer  Nodes
	tasks  sync.WaitGroup
	undo   []func() // in reverse order at the end
}

// A node is an adapter and what its receiver heard.
type node struct {
	index   int
	adapter adapter.Adapter
	heard   *recorder

	mu        sync.Mutex
	connected atomic.Bool    // a Publish or Append has succeeded
	published atomic.Uint64  // frames; every other one goes by PublishAsync, if there is that
	late      sync.WaitGroup // what waits for those that nobody waits for any more

	sender map[string]chan struct{} // the contract: one Publish or Append at a time for a channel
}

func (n *node) String() string { return fmt.Sprintf("node %d", n.index) }

func newEnv(ctx context.Context, offer Nodes) *env {
	e := &env{id: nextID(), offer: offer}
	e.ctx, e.cancel = context.WithCancel(ctx)
	for i, a := range offer.Adapters {
		e.nodes = append(e.nodes, &node{
			index: i, adapter: a, heard: newRecorder(), sender: make(map[string]chan struct{}),
		})
	}
	return e
}

func (e *env) nodesHave(n needs) error { return e.offer.lack(n) }

// cleanup closes the adapters and waits for all that the case has started. It
// does not judge how they close, there are cases for that.
func (e *env) cleanup() error {
	for _, f := range slices.Backward(e.undo) {
		f()
	}
	e.cancel()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), grace/2)
	defer cancel()
	for _, n := range e.nodes {
		e.tasks.Go(func() {
			_ = n.adapter.Close(ctx)
			n.late.Wait()
		})
	}
	e.tasks.Wait()
	return nil
}

// A failure is what ends a case.
type failure struct{ err error }

func (e *env) failf(format string, args ...any) {
	panic(failure{fmt.Errorf(format, args...)})
}

// must ends the case if err is not nil.
func (e *env) must(err error, format string, args ...any) {
	if err != nil {
		e.failf("%s: %w", fmt.Sprintf(format, args...), err)
	}
}

// channel returns a name that no other case uses, of the form that hubs use.
func (e *env) channel(room string) string { return e.kind("r", room) }

// kind returns the name of another channel of the room: it has the same hash
// tag, so it comes over the same connection.
func (e *env) kind(kind, room string) string {
	return fmt.Sprintf("fanout:%s:{%s:%s}", kind, e.id, room)
}

// until waits for a condition.
func (e *env) until(cond func() bool, format string, args ...any) {
	if !e.within(e.ctx, cond) {
		e.failf("waited in vain: %s", fmt.Sprintf(format, args...))
	}
}

// soon waits for a condition for d at most. It is for conditions that should
// not come true, where no event says that they won't.
func (e *env) soon(d time.Duration, cond func() bool) bool {
	ctx, cancel := context.WithTimeout(e.ctx, d)
	defer cancel()
	return e.within(ctx, cond)
}

// within polls; for any goroutine.
func (e *env) within(ctx context.Context, cond func() bool) bool {
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		if cond() {
			return true
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return cond()
		}
	}
}

// publish is for any goroutine.
func (n *node) publish(ctx context.Context, channel, frame string) (int, error) {
	return n.publishBytes(ctx, channel, []byte(frame))
}

func (n *node) publishBytes(ctx context.Context, channel string, frame []byte) (receivers int, err error) {
	err = n.onceConnected(ctx, func() error {
		receivers, err = n.publishNow(ctx, channel, frame)
		return err
	})
	return receivers, err
}

// onceConnected publishes. An adapter may say, before its first connection, that a frame
// is not sent, and say so at once: then it is tried again, as a hub does.
func (n *node) onceConnected(ctx context.Context, publish func() error) error {
	for {
		was := n.connected.Load()
		err := publish()
		if err == nil {
			n.connected.Store(true)
		}
		if was || !errors.Is(err, adapter.ErrUnsent) || errors.Is(err, adapter.ErrClosed) {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func (n *node) publishNow(ctx context.Context, channel string, frame []byte) (int, error) {
	done, err := n.turn(ctx, channel)
	if err != nil {
		return 0, err
	}
	if a, ok := n.adapter.(adapter.AsyncPublisher); ok && ctx.Err() == nil && n.published.Add(1)%2 == 0 {
		if c := make(completion, 1); a.PublishAsync(channel, frame, c) {
			return n.await(ctx, c, done)
		}
	}
	defer done()
	return n.adapter.Publish(ctx, channel, frame)
}

// await waits for a PublishAsync. It is bounded by the adapter and not by ctx: if that
// ends first it goes on, and the channel's turn with it.
func (n *node) await(ctx context.Context, c completion, done func()) (int, error) {
	select {
	case r := <-c:
		done()
		return r.receivers, r.err
	case <-ctx.Done():
		n.late.Go(func() {
			<-c
			done()
		})
		return 0, context.Cause(ctx)
	}
}

// A completion gets what Complete is given the first time.
type completion chan completed

type completed struct {
	receivers int
	err       error
}

func (c completion) Complete(receivers int, err error) {
	select {
	case c <- completed{receivers, err}:
	default:
	}
}

// turn waits until nobody publishes to the channel, and keeps others from it
// until done is called.
func (n *node) turn(ctx context.Context, channel string) (done func(), err error) {
	n.mu.Lock()
	sender := n.sender[channel]
	if sender == nil {
		sender = make(chan struct{}, 1)
		n.sender[channel] = sender
	}
	n.mu.Unlock()
	done = func() { <-sender }
	select {
	case sender <- struct{}{}: // also if ctx has ended: what the adapter makes of that is for cases
		return done, nil
	default:
	}
	select {
	case sender <- struct{}{}:
		return done, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the frame before is still on its way: %w", context.Cause(ctx))
	}
}

// mustPublish publishes a frame that nothing stands in the way of.
func (e *env) mustPublish(n *node, channel, frame string) {
	_, err := n.publish(e.ctx, channel, frame)
	e.must(err, "%v: Publish to %q", n, channel)
}

func (e *env) subscribe(n *node, channel string) {
	e.must(n.adapter.Subscribe(e.ctx, channel), "%v: Subscribe to %q", n, channel)
}

func (e *env) unsubscribe(n *node, channel string) {
	e.must(n.adapter.Unsubscribe(e.ctx, channel), "%v: Unsubscribe from %q", n, channel)
}

// join subscribes, and goes on when the nodes really hear: what a case tests
// after it does not depend on Subscribe being right.
func (e *env) join(channel string, nodes ...*node) {
	for _, n := range nodes {
		e.subscribe(n, channel)
	}
	e.settle(e.nodes[0], channel, nodes...)
}

// probe begins the frames that settle sends. Cases don't look at them.
const probe = "\x00probe "

// settle publishes until all of the nodes hear. As frames of a publisher keep
// their order, whatever it published on the channel before has then arrived
// there, or never will.
func (e *env) settle(from *node, channel string, to ...*node) {
	e.settleBy("Publish", from, channel, to, func(ctx context.Context, frame string) error {
		_, err := from.publish(ctx, channel, frame)
		return err
	})
}

func (e *env) settleBy(what string, from *node, channel string, to []*node, send func(ctx context.Context, frame string) error) {
	var frame string
	deaf := func() []string {
		var names []string
		for _, n := range to {
			if n.heard.count(channel, frame) == 0 {
				names = append(names, n.String())
			}
		}
		return names
	}
	var err error
	for wait := 50 * time.Millisecond; e.ctx.Err() == nil; wait = min(2*wait, 5*time.Second) {
		// Each try is a frame of its own, so no earlier one is on its way
		// when this one has arrived.
		frame = probe + nextID()
		ctx, cancel := context.WithTimeout(e.ctx, 2*time.Second)
		err = send(ctx, frame)
		cancel()
		if e.soon(wait, func() bool { return len(deaf()) == 0 }) {
			return
		}
	}
	e.failf("%s does not hear %v on %q (last %s: %v)", strings.Join(deaf(), ", "), from, channel, what, err)
}

// silent sees to it that a node that heard so many calls on the channel hears
// no more, though others publish: a witness hears what is published now, and
// the node itself hears what is published later on a channel beside it.
func (e *env) silent(n *node, channel string, calls int, from, witness *node, beside string) {
	for range 3 {
		e.mustPublish(from, channel, "not for "+n.String())
	}
	e.settle(from, channel, witness)
	e.settle(from, beside, n)
	if events := n.heard.events(channel); len(events) > calls {
		e.failf("%v is not subscribed to %q any more but was told %q", n, channel, events[calls:])
	}
}

// all runs f so many times at once and waits; an error ends the case.
func (e *env) all(count int, f func(i int) error) {
	var group sync.WaitGroup
	errs := make([]error, count)
	for i := range count {
		group.Go(func() { errs[i] = f(i) })
	}
	group.Wait()
	for _, err := range errs {
		e.must(err, "in one of %d concurrent calls", count)
	}
}

// A task is a goroutine of the case.
type task struct {
	done chan struct{}
	err  error // when done
}

// start runs f; the end of the case waits for it.
func (e *env) start(f func() error) *task {
	t := &task{done: make(chan struct{})}
	e.tasks.Go(func() {
		defer close(t.done)
		t.err = f()
	})
	return t
}

func (t *task) over() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// wait waits for the end of a task and returns its error. A task that ends
// because the time of the case is over has not ended by itself.
func (e *env) wait(t *task, format string, args ...any) error {
	e.until(func() bool { return t.over() && e.ctx.Err() == nil }, format, args...)
	return t.err
}

// atEnd has f called when the case is over, however it ends.
func (e *env) atEnd(f func()) { e.undo = append(e.undo, f) }

// stream publishes frames, some each millisecond, until the returned function
// is called, which waits for the last Publish.
func (e *env) stream(n *node, channel string) (stop func()) {
	ctx, cancel := context.WithCancel(e.ctx)
	t := e.start(func() error {
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for i := 0; i < streamMax && ctx.Err() == nil; i++ {
			if _, err := n.publish(e.ctx, channel, fmt.Sprint("stream ", i)); err != nil {
				return err
			}
			if i%10 == 9 {
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		}
		return nil
	})
	return func() {
		cancel()
		e.must(e.wait(t, "%v: Publish to %q returns", n, channel), "%v: Publish to %q", n, channel)
	}
}

// streamMax bounds a stream, to be kind to servers.
const streamMax = 5000
