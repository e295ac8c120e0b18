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

// An env is the environment of a case. Its methods end the case if they fail,
// as those of testing.T do. They must be called on the goroutine of the case,
// unless they say otherwise.
type env struct {
	ctx    context.Context
	cancel context.CancelFunc
	id     string
	nodes  []*node
	offer  Nodes
	tasks  sync.WaitGroup
	undo   []func() // in reverse order at the end
}

// A node is an adapter and a record of what its receiver got.
type node struct {
	index   int
	adapter adapter.Adapter
	heard   *recorder

	mu        sync.Mutex
	connected atomic.Bool    // a Publish or Append has succeeded
	published atomic.Uint64  // frames; every other one is published by PublishAsync, if the adapter has it
	late      sync.WaitGroup // goroutines that wait for a PublishAsync whose caller has returned

	sender map[string]chan struct{} // by channel; full during a Publish or Append, since the contract allows one at a time
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

// cleanup closes the adapters and waits for all goroutines of the case. Other
// cases check how adapters close.
func (e *env) cleanup() error {
	for _, f := range slices.Backward(e.undo) {
		f()
	}
	e.cancel()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), grace/2)
	defer cancel()
	for _, n := range e.nodes {
		e.tasks.Go(func() { _ = n.adapter.Close(ctx) })
	}
	e.tasks.Wait()
	for _, n := range e.nodes { // the case's goroutines have stopped publishing
		n.late.Wait()
	}
	return nil
}

// A failure is the panic value that ends a case.
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

// kind returns the name of another channel of the room. It has the same hash
// tag, so its frames come over the same connection.
func (e *env) kind(kind, room string) string {
	return fmt.Sprintf("fanout:%s:{%s:%s}", kind, e.id, room)
}

// until waits for a condition, and fails if it does not become true.
func (e *env) until(cond func() bool, format string, args ...any) {
	if !e.within(e.ctx, cond) {
		e.failf("this did not happen: %s", fmt.Sprintf(format, args...))
	}
}

// soon waits for a condition for at most d. It is for conditions that should
// not become true, where no event shows that they will not.
func (e *env) soon(d time.Duration, cond func() bool) bool {
	ctx, cancel := context.WithTimeout(e.ctx, d)
	defer cancel()
	return e.within(ctx, cond)
}

// within polls a condition until ctx ends. Any goroutine may call it.
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

// publish publishes a frame. Any goroutine may call it.
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

// onceConnected publishes. Before its first connection an adapter may return
// ErrUnsent at once; then onceConnected tries again, as a hub does.
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

// await waits for a PublishAsync, whose time the adapter bounds and not ctx. If
// ctx ends first the PublishAsync continues, and the channel stays busy with
// it.
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

// A completion gets the first results that Complete is called with.
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

// turn waits until nothing is being published to the channel, and keeps others
// from publishing to it until done is called.
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
	case sender <- struct{}{}: // even if ctx has ended: cases test how the adapter reacts to that
		return done, nil
	default:
	}
	select {
	case sender <- struct{}{}:
		return done, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the previous frame is still being published: %w", context.Cause(ctx))
	}
}

// mustPublish publishes a frame in a situation where that must succeed.
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

// join subscribes, and returns when the nodes do receive: what a case tests
// after it does not depend on a correct Subscribe.
func (e *env) join(channel string, nodes ...*node) {
	for _, n := range nodes {
		e.subscribe(n, channel)
	}
	e.settle(e.nodes[0], channel, nodes...)
}

// probe is the prefix of the frames that settle sends. Cases ignore them.
const probe = "\x00probe "

// settle publishes until all of the nodes receive. The frames of a publisher
// keep their order, so what it published on the channel before has then
// arrived, or never will.
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
		// Each attempt is a frame of its own, so no earlier one can arrive
		// after this one.
		frame = probe + nextID()
		ctx, cancel := context.WithTimeout(e.ctx, 2*time.Second)
		err = send(ctx, frame)
		cancel()
		if e.soon(wait, func() bool { return len(deaf()) == 0 }) {
			return
		}
	}
	e.failf("%s does not receive from %v on %q (last %s: %v)", strings.Join(deaf(), ", "), from, channel, what, err)
}

// silent checks that a node that has had a number of calls for the channel gets
// no more, though others publish. A witness receives what is published now, and
// the node itself receives what is published later on a channel beside it.
func (e *env) silent(n *node, channel string, calls int, from, witness *node, beside string) {
	for range 3 {
		e.mustPublish(from, channel, "not for "+n.String())
	}
	e.settle(from, channel, witness)
	e.settle(from, beside, n)
	if events := n.heard.events(channel); len(events) > calls {
		e.failf("%v is not subscribed to %q, but its receiver was called: %q", n, channel, events[calls:])
	}
}

// all runs f count times concurrently and waits; an error ends the case.
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

// start runs f on a goroutine that the end of the case waits for.
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

// wait waits for the end of a task and returns its error. If the task ends only
// because the time of the case is over, that is a failure.
func (e *env) wait(t *task, format string, args ...any) error {
	e.until(func() bool { return t.over() && e.ctx.Err() == nil }, format, args...)
	return t.err
}

// atEnd arranges for f to be called when the case ends, whether or not it
// fails.
func (e *env) atEnd(f func()) { e.undo = append(e.undo, f) }

// stream publishes some frames each millisecond until the returned function is
// called, which waits for the last Publish.
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

// streamMax bounds the frames of a stream, to spare the servers.
const streamMax = 5000
