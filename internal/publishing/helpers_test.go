package publishing

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/async"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

const timeout = 10 * time.Second // Env.Timeout

// An answer is what the backend says to a frame.
type answer struct {
	receivers int
	err       error
	panics    bool
}

// A backend is an adapter that notes what it is sent. If answers is set, each
// call of Publish or Append waits for one.
type backend struct {
	adapter.Adapter
	adapter.Historian
	answers chan answer

	mu    sync.Mutex // guards all below
	sent  [][]byte
	kept  []adapter.Record
	ended int // calls that ended with their context
}

func (b *backend) Publish(ctx context.Context, _ string, frame []byte) (int, error) {
	b.mu.Lock()
	b.sent = append(b.sent, frame)
	b.mu.Unlock()
	if b.answers == nil {
		return 1, nil
	}
	select {
	case a := <-b.answers:
		if a.panics {
			panic("adapter")
		}
		return a.receivers, a.err
	case <-ctx.Done():
		b.mu.Lock()
		b.ended++
		b.mu.Unlock()
		return 0, ctx.Err()
	}
}

func (b *backend) Append(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
	b.mu.Lock()
	b.kept = append(b.kept, r)
	b.mu.Unlock()
	receivers, err := b.Publish(ctx, channel, r.Frame)
	return adapter.Position{}, receivers, err
}

// count returns the number of frames that were sent.
func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sent)
}

// A handOver is an adapter.AsyncPublisher. It takes what it is given if takes
// is set.
type handOver struct {
	*backend
	takes, panics bool
	under         adapter.Completion
}

func (h *handOver) PublishAsync(_ string, frame []byte, done adapter.Completion) bool {
	if h.panics {
		panic("adapter")
	}
	if h.takes {
		h.mu.Lock()
		h.sent = append(h.sent, frame)
		h.under = done
		h.mu.Unlock()
	}
	return h.takes
}

// A room is an owner. Its holds are those of the test and of its channel.
type room struct {
	holds     atomic.Int64
	mu        sync.Mutex
	delivered []string
	frames    [][]byte
}

func (r *room) Hold()                { r.holds.Add(1) }
func (r *room) Release(n int)        { r.holds.Add(int64(-n)) }
func (r *room) Wrap(err error) error { return fmt.Errorf("room x: %w", err) }

func (r *room) Deliver(e item.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delivered = append(r.delivered, string(e.Data))
}

func (r *room) DeliverFrame(frame []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = append(r.frames, frame)
}

// A tester is a hub that publishes to a channel, and what it needs.
type tester struct {
	*backend
	t          *testing.T
	env        Env
	c          Channel
	room       room
	publishers async.Publishers
	wg         sync.WaitGroup
	end        context.CancelCauseFunc
	counted    struct{ published, frames, received, streams, copies atomic.Uint64 }
}

// in runs a test with a channel. The set function, if not nil, changes the hub
// and the channel before that is made.
func in(t *testing.T, name string, set func(x *tester, o *Options), test func(t *testing.T, x *tester)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			x := &tester{t: t, backend: new(backend)}
			ctx, end := context.WithCancelCause(t.Context())
			x.end = end
			x.env = Env{
				Hub: 7, Home: &item.Home{ID: "0000000000000007", Arrival: func() uint64 { return 1 }}, Context: ctx,
				Adapter: x.backend, Historian: x.backend,
				WithHealth: func(err error) error { return fmt.Errorf("%w (link down)", err) },
				Timeout:    timeout, Bounds: deadline.NewGroup(ctx, timeout, context.DeadlineExceeded),
				Publishers: &x.publishers, Go: x.wg.Go, Numbers: new(Numbers),
				NewStream: func() uint64 { return x.counted.streams.Add(1) },
				NewCopyID: func() uint64 { return x.counted.copies.Add(1) },
				Published: &x.counted.published, Frames: &x.counted.frames, Received: &x.counted.received,
			}
			o := Options{Name: "x"}
			if set != nil {
				set(x, &o)
			}
			x.publishers.Init(&async.Env{
				Ops: gate.New(), Open: ctx, Bounds: x.env.Bounds, Go: x.wg.Go,
				Explain: func(_ context.Context, err error) error { return err },
			}, 1<<20)
			x.c.Init(&x.env, &x.room, o)
			test(t, x)
			synctest.Wait()
			require.Zero(t, x.room.holds.Load(), "what is over is not held")
			end(adapter.ErrClosed)
			x.wg.Wait()
		})
	})
}

// slow is a set function: the backend waits for answers.
func slow(x *tester, _ *Options) { x.answers = make(chan answer) }

// fallback is slow for a hub with LocalFallback.
func fallback(x *tester, o *Options) {
	slow(x, o)
	x.env.LocalFallback = true
}

// keeping is slow for a channel with a history.
func keeping(x *tester, o *Options) {
	slow(x, o)
	o.Keep = &adapter.Retention{Messages: 10}
}

// publish publishes in a goroutine, and returns when that has got as far as it
// can.
func (x *tester) publish(ctx context.Context, said string) chan error {
	result := make(chan error, 1)
	go func() {
		defer func() {
			if recover() != nil {
				result <- errPanic
			}
		}()
		result <- x.c.Publish(ctx, &wire.Message{Data: []byte(said)})
	}()
	synctest.Wait()
	return result
}

// publishAsync is publish without waiting, with one of the functions for that.
func (x *tester) publishAsync(f func(*wire.Message, async.Ack), said string) chan error {
	result := make(chan error, 1)
	a, err := x.publishers.Begin(x.t.Context(), len(said), func(err error) { result <- err })
	require.NoError(x.t, err)
	x.room.Hold()
	f(&wire.Message{Data: []byte(said)}, a)
	synctest.Wait()
	return result
}

// answer answers the oldest call of the backend, and waits for what follows.
func (x *tester) answer(a answer) {
	x.answers <- a
	synctest.Wait()
}

// read returns the first number and the messages of a frame.
func read(t *testing.T, frame []byte) (seq uint64, said []string) {
	t.Helper()
	head, d, err := wire.Decode(frame)
	require.NoError(t, err)
	var v wire.View
	for d.Next(&v) {
		said = append(said, string(v.Data))
	}
	return head.Seq, said
}

// wantSent requires that the frame with an index in the list of those that were
// sent has a number and messages.
func (x *tester) wantSent(index int, seq uint64, said ...string) {
	x.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	require.Greater(x.t, len(x.sent), index, "not sent")
	gotSeq, got := read(x.t, x.sent[index])
	require.Equal(x.t, said, got)
	require.Equal(x.t, seq, gotSeq)
}
