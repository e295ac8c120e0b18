package adaptertest_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
)

// A node is an adapter in memory that a mutant has broken: a method for which
// the node has a function calls that, the others are those of memory.
type node struct {
	*memory.Adapter
	world *world
	index int
	done  chan struct{}  // closed when the test is over
	own   sync.WaitGroup // goroutines of mutants
	isCut atomic.Bool
	cutBy func() // Cut, if nil

	attach       func(adapter.Receiver) error
	subscribe    func(ctx context.Context, channel string) error
	unsubscribe  func(ctx context.Context, channel string) error
	publish      func(ctx context.Context, channel string, frame []byte) (int, error)
	publishAsync func(channel string, frame []byte, done adapter.Completion) bool
	append       func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error)
	history      func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error)
	close        func(ctx context.Context) error
	health       func() error
	hear         ear // what is between the adapter and its receiver

	async sync.WaitGroup // PublishAsync

	mu       sync.Mutex
	closed   bool
	receiver adapter.Receiver // the suite's
	counts   map[string]int   // for mutants, by any name
}

// An ear has a function for each method of a receiver it changes.
type ear struct {
	receive     func(next adapter.Receiver, channel string, frame []byte)
	kept        func(next adapter.HistoryReceiver, channel string, f adapter.KeptFrame)
	interrupted func(next adapter.Receiver, channel string)
	moving      func(next adapter.HistoryReceiver, channel string)
	restored    func(next adapter.Receiver, channel string)
}

func (n *node) Attach(r adapter.Receiver) error {
	n.mu.Lock()
	if n.receiver == nil {
		n.receiver = r
	}
	n.mu.Unlock()
	if n.attach != nil {
		return n.attach(r)
	}
	return n.Adapter.Attach(n.listener(r))
}

func (n *node) Subscribe(ctx context.Context, channel string) error {
	if n.subscribe != nil {
		return n.subscribe(ctx, channel)
	}
	return n.Adapter.Subscribe(ctx, channel)
}

func (n *node) Unsubscribe(ctx context.Context, channel string) error {
	if n.unsubscribe != nil {
		return n.unsubscribe(ctx, channel)
	}
	return n.Adapter.Unsubscribe(ctx, channel)
}

func (n *node) Publish(ctx context.Context, channel string, frame []byte) (int, error) {
	if n.publish != nil {
		return n.publish(ctx, channel, frame)
	}
	return n.Adapter.Publish(ctx, channel, frame)
}

// PublishAsync does what Publish does, whatever that is now.
func (n *node) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	if n.publishAsync != nil {
		return n.publishAsync(channel, frame, done)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.async.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		done.Complete(n.Publish(ctx, channel, frame))
	})
	return true
}

func (n *node) Append(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
	if n.append != nil {
		return n.append(ctx, channel, r)
	}
	return n.Adapter.Append(ctx, channel, r)
}

func (n *node) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	if n.history != nil {
		return n.history(ctx, channel, q)
	}
	return n.Adapter.History(ctx, channel, q)
}

func (n *node) Close(ctx context.Context) error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	var err error
	if n.close != nil {
		err = n.close(ctx)
	} else {
		err = n.Adapter.Close(ctx)
	}
	n.async.Wait()
	return err
}

func (n *node) Health() error {
	if n.health != nil {
		return n.health()
	}
	return n.Adapter.Health()
}

// setCut is what the faults Cut and Heal do.
func (n *node) setCut(is bool) {
	n.isCut.Store(is)
	switch {
	case !is:
		n.Heal()
	case n.cutBy != nil:
		n.cutBy()
	default:
		n.Cut()
	}
}

// tally adds one to the count of something and returns it.
func (n *node) tally(what string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.counts == nil {
		n.counts = make(map[string]int)
	}
	n.counts[what]++
	return n.counts[what]
}

// reset sets the count of something to 0.
func (n *node) reset(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.counts, what)
}

func (n *node) target() adapter.Receiver {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.receiver
}

// A listener is the receiver that memory calls.
type listener struct {
	n    *node
	next adapter.HistoryReceiver
}

func (n *node) listener(r adapter.Receiver) *listener {
	return &listener{n: n, next: r.(adapter.HistoryReceiver)}
}

func (l *listener) Receive(channel string, frame []byte) {
	if l.n.hear.receive != nil {
		l.n.hear.receive(l.next, channel, frame)
		return
	}
	l.next.Receive(channel, frame)
}

func (l *listener) ReceiveKept(channel string, f adapter.KeptFrame) {
	if l.n.hear.kept != nil {
		l.n.hear.kept(l.next, channel, f)
		return
	}
	l.next.ReceiveKept(channel, f)
}

func (l *listener) Moving(channel string) {
	if l.n.hear.moving != nil {
		l.n.hear.moving(l.next, channel)
		return
	}
	l.next.Moving(channel)
}

func (l *listener) Interrupted(channel string) {
	if l.n.hear.interrupted != nil {
		l.n.hear.interrupted(l.next, channel)
		return
	}
	l.next.Interrupted(channel)
}

func (l *listener) Restored(channel string) {
	if l.n.hear.restored != nil {
		l.n.hear.restored(l.next, channel)
		return
	}
	l.next.Restored(channel)
}

// isProbe recognises the frames that settle sends. Mutants do not change them,
// so that nothing else fails than what the mutants break.
func isProbe(frame []byte) bool { return strings.HasPrefix(string(frame), "\x00probe") }
