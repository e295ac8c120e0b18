package publishing

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

var errBroken = errors.New("broken")

func TestChannelPublish(t *testing.T) {
	in(t, "sends at once, and counts", nil, func(t *testing.T, x *tester) {
		require.NoError(t, <-x.publish(t.Context(), "a"))
		require.NoError(t, <-x.publish(t.Context(), "b"))
		x.wantSent(0, 1, "a")
		x.wantSent(1, 2, "b")
		require.EqualValues(t, 2, x.counted.published.Load())
		require.EqualValues(t, 2, x.counted.frames.Load())
	})
	in(t, "hands on the turn: what gathers goes as one frame", slow, func(t *testing.T, x *tester) {
		a, b, c := x.publish(t.Context(), "a"), x.publish(t.Context(), "b"), x.publish(t.Context(), "c")
		x.answer(answer{receivers: 1})
		require.NoError(t, <-a)
		x.answer(answer{receivers: 1})
		require.NoError(t, <-b)
		require.NoError(t, <-c)
		x.wantSent(1, 2, "b", "c")
		require.EqualValues(t, 3, x.counted.published.Load())
		require.EqualValues(t, 2, x.counted.frames.Load())
	})
	in(t, "needs no receiver", slow, func(t *testing.T, x *tester) {
		a := x.publish(t.Context(), "a")
		x.answer(answer{receivers: 0})
		require.NoError(t, <-a)
	})
	in(t, "withdraws the message of a publisher that leaves", slow, func(t *testing.T, x *tester) {
		ctx, cancel := context.WithCancel(t.Context())
		a, leaves, stays := x.publish(t.Context(), "a"), x.publish(ctx, "leaves"), x.publish(t.Context(), "stays")
		cancel()
		err := <-leaves
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		require.ErrorContains(t, err, "room x: ")
		require.ErrorContains(t, err, "(link down)")
		x.answer(answer{receivers: 1})
		x.answer(answer{receivers: 1})
		require.NoError(t, errors.Join(<-a, <-stays))
		x.wantSent(1, 2, "stays")
	})
	in(t, "gives up a frame under way that all publishers have left", slow, func(t *testing.T, x *tester) {
		ctx, cancel := context.WithCancel(t.Context())
		a, leaves := x.publish(t.Context(), "a"), x.publish(ctx, "leaves")
		x.answer(answer{receivers: 1})
		require.NoError(t, <-a)
		cancel()
		err := <-leaves
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, adapter.ErrUnsent, "it may have arrived")
		synctest.Wait()
		require.Equal(t, 1, x.ended)
		c := x.publish(t.Context(), "c")
		x.answer(answer{receivers: 1})
		require.NoError(t, <-c)
		x.wantSent(2, 3, "c")
	})
	in(t, "takes no longer than Timeout, for others' frames too", slow, func(t *testing.T, x *tester) {
		begun := time.Now()
		a, b := x.publish(context.Background(), "a"), x.publish(context.Background(), "b")
		require.ErrorIs(t, <-a, context.DeadlineExceeded)
		require.ErrorIs(t, <-b, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(begun), timeout)
	})
	in(t, "refuses with a context that has ended", nil, func(t *testing.T, x *tester) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := <-x.publish(ctx, "a")
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		require.Zero(t, x.count())
	})
	in(t, "refuses on an invalid channel", func(_ *tester, o *Options) { o.Invalid = errBroken }, func(t *testing.T, x *tester) {
		for _, result := range []chan error{
			x.publish(t.Context(), "a"),
			x.publishAsync(x.c.PublishAsync, "a"), x.publishAsync(x.c.PublishUnkeptAsync, "a"),
		} {
			err := <-result
			require.ErrorIs(t, err, errBroken)
			require.ErrorIs(t, err, adapter.ErrUnsent)
		}
		_, err := x.c.Notify(t.Context(), []byte("notice"))
		require.ErrorIs(t, err, errBroken)
		require.Zero(t, x.count())
	})
	in(t, "sends nothing once the hub has ended", nil, func(t *testing.T, x *tester) {
		x.end(adapter.ErrClosed)
		err := <-x.publish(t.Context(), "a")
		require.ErrorIs(t, err, adapter.ErrClosed)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		require.Zero(t, x.count())
	})
	in(t, "delivers in place if the hub is alone", func(x *tester, _ *Options) { x.env.Alone = true }, func(t *testing.T, x *tester) {
		require.NoError(t, <-x.publish(t.Context(), "a"))
		require.NoError(t, <-x.publishAsync(x.c.PublishAsync, "b"))
		require.Equal(t, []string{"a", "b"}, x.room.delivered)
		require.EqualValues(t, 2, x.counted.published.Load())
		require.EqualValues(t, 2, x.counted.received.Load())
		require.Zero(t, x.count())
	})
}

func TestChannelHistory(t *testing.T) {
	in(t, "gets what is published, with its numbers", keeping, func(t *testing.T, x *tester) {
		a := x.publish(t.Context(), "a")
		b, c := x.publish(t.Context(), "b"), x.publishAsync(x.c.PublishAsync, "c")
		x.answer(answer{receivers: 1})
		x.answer(answer{receivers: 1})
		require.NoError(t, errors.Join(<-a, <-b, <-c))
		require.True(t, x.c.Keeps())
		r := x.kept[1]
		require.Equal(t, adapter.Retention{Messages: 10}, r.Keep)
		require.Equal(t, x.env.Home.ID, r.Publisher)
		require.Equal(t, []uint64{1, 2, 2}, []uint64{r.Stream, r.Seq, uint64(r.Messages)})
		x.wantSent(1, 2, "b", "c")
	})
	in(t, "is waited for, though the adapter need not be for what is unkept", func(x *tester, o *Options) {
		keeping(x, o)
		x.env.Async = &handOver{backend: x.backend, takes: true}
	}, func(t *testing.T, x *tester) {
		a := x.publishAsync(x.c.PublishAsync, "a")
		x.answer(answer{receivers: 1})
		require.NoError(t, <-a)
		require.Len(t, x.kept, 1)
		b := x.publishAsync(x.c.PublishUnkeptAsync, "b")
		x.env.Async.(*handOver).under.Complete(1, nil)
		require.NoError(t, <-b)
		require.Len(t, x.kept, 1)
	})
	in(t, "does not get what is unkept, which has its turn", keeping, func(t *testing.T, x *tester) {
		a := x.publish(t.Context(), "a")
		unkept := make(chan error, 1)
		go func() { unkept <- x.c.PublishUnkept(t.Context(), &wire.Message{Data: []byte("b")}) }()
		synctest.Wait()
		c := x.publishAsync(x.c.PublishUnkeptAsync, "c")
		for range 3 {
			x.answer(answer{receivers: 1})
		}
		require.NoError(t, errors.Join(<-a, <-unkept, <-c))
		d := x.publishAsync(x.c.PublishUnkeptAsync, "d") // the turn is free
		x.answer(answer{receivers: 1})
		require.NoError(t, <-d)
		require.Len(t, x.kept, 1)
		for i, said := range []string{1: "b", 2: "c", 3: "d"} {
			carried, ok := wire.DecodeUnkept(x.sent[i])
			require.Equal(t, i > 0, ok)
			if ok {
				_, got := read(t, carried)
				require.Equal(t, []string{said}, got)
			}
		}
		require.EqualValues(t, 3, x.counted.copies.Load(), "each has an ID")
		require.EqualValues(t, 4, x.counted.published.Load())
	})
}

func TestChannelPanic(t *testing.T) {
	in(t, "of Publish is the caller's, and the others go on", slow, func(t *testing.T, x *tester) {
		a, b := x.publish(t.Context(), "a"), x.publish(t.Context(), "b")
		x.answer(answer{panics: true})
		require.Equal(t, errPanic, <-a)
		x.answer(answer{receivers: 1})
		require.NoError(t, <-b)
		x.wantSent(1, 2, "b")
	})
	in(t, "of PublishAsync is the caller's, and its publisher is told", func(x *tester, _ *Options) {
		x.env.Async = &handOver{backend: x.backend, panics: true}
	}, func(t *testing.T, x *tester) {
		told := make(chan error, 1)
		a, err := x.publishers.Begin(t.Context(), 1, func(err error) { told <- err })
		require.NoError(t, err)
		x.room.Hold()
		require.PanicsWithValue(t, "adapter", func() { x.c.PublishAsync(&wire.Message{Data: []byte("a")}, a) })
		err = <-told
		require.ErrorIs(t, err, errPanic)
		require.NotErrorIs(t, err, adapter.ErrUnsent)
		require.NoError(t, <-x.publish(t.Context(), "b"))
		x.wantSent(0, 2, "b")
	})
}

func TestChannelPublishAsync(t *testing.T) {
	taking := func(x *tester, o *Options) {
		slow(x, o)
		x.env.Async = &handOver{backend: x.backend, takes: true}
	}
	in(t, "hands frames over, one at a time", taking, func(t *testing.T, x *tester) {
		h := x.env.Async.(*handOver)
		a, b, c := x.publishAsync(x.c.PublishAsync, "a"), x.publishAsync(x.c.PublishAsync, "b"), x.publishAsync(x.c.PublishAsync, "c")
		require.Equal(t, 1, x.count())
		h.under.Complete(1, nil)
		require.NoError(t, <-a)
		require.Equal(t, 2, x.count())
		h.under.Complete(1, nil)
		require.NoError(t, errors.Join(<-b, <-c))
		x.wantSent(1, 2, "b", "c")
	})
	in(t, "tries again in the background what was handed over and failed", taking, func(t *testing.T, x *tester) {
		a := x.publishAsync(x.c.PublishAsync, "a")
		x.env.Async.(*handOver).under.Complete(0, errBroken)
		time.Sleep(time.Second)
		x.answer(answer{receivers: 1})
		require.NoError(t, <-a)
		require.False(t, wire.IsFirst(x.sent[1]))
	})
	in(t, "sends in the background what the adapter does not take", func(x *tester, o *Options) {
		slow(x, o)
		x.env.Async = &handOver{backend: x.backend}
	}, func(t *testing.T, x *tester) {
		a := x.publishAsync(x.c.PublishAsync, "a")
		x.answer(answer{receivers: 1})
		require.NoError(t, <-a)
		require.Nil(t, x.c.sending)
		x.wantSent(0, 1, "a")
	})
	in(t, "gives up when Timeout is over, and what has gathered too", taking, func(t *testing.T, x *tester) {
		h := x.env.Async.(*handOver)
		a := x.publishAsync(x.c.PublishAsync, "a")
		b := x.publishAsync(x.c.PublishAsync, "b")
		large := x.publishAsync(x.c.PublishAsync, strings.Repeat("c", 100<<10)) // a frame of its own
		time.Sleep(timeout)
		h.under.Complete(0, errBroken) // its retry has no time left
		require.ErrorIs(t, <-a, context.DeadlineExceeded)
		for _, c := range []chan error{b, large} {
			err := <-c
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, adapter.ErrUnsent)
			require.ErrorContains(t, err, "(link down)")
		}
		require.Equal(t, 1, x.count())
		d := x.publishAsync(x.c.PublishAsync, "d")
		h.under.Complete(1, nil)
		require.NoError(t, <-d)
		x.wantSent(1, 2, "d")
	})
	in(t, "does not ask for the health on the adapter's goroutine", taking, func(t *testing.T, x *tester) {
		a, b := x.publishAsync(x.c.PublishAsync, "a"), x.publishAsync(x.c.PublishAsync, "b")
		time.Sleep(timeout)
		x.env.Async.(*handOver).under.Complete(1, nil)
		require.NoError(t, <-a)
		err := <-b
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotContains(t, err.Error(), "link down")
	})
	in(t, "and Publish stay in order", slow, func(t *testing.T, x *tester) {
		a, b, c := x.publishAsync(x.c.PublishAsync, "a"), x.publish(t.Context(), "b"), x.publishAsync(x.c.PublishAsync, "c")
		x.answer(answer{receivers: 1})
		x.answer(answer{receivers: 1})
		require.NoError(t, errors.Join(<-a, <-b, <-c))
		x.wantSent(1, 2, "b", "c")
	})
}

func TestLocalFallback(t *testing.T) {
	in(t, "delivers a frame that failed, whose numbers are used up", fallback, func(t *testing.T, x *tester) {
		a := x.publish(t.Context(), "a")
		x.answer(answer{err: adapter.Unsent(adapter.ErrRefused)})
		err := <-a
		require.ErrorIs(t, err, ErrLocalOnly)
		require.ErrorIs(t, err, adapter.ErrRefused)
		require.NotErrorIs(t, err, adapter.ErrUnsent)
		_, said := read(t, x.room.frames[0])
		require.Equal(t, []string{"a"}, said)
		b := x.publish(t.Context(), "b")
		x.answer(answer{receivers: 1})
		require.NoError(t, <-b)
		x.wantSent(1, 2, "b")
	})
	in(t, "delivers a message that was withdrawn", fallback, func(t *testing.T, x *tester) {
		ctx, cancel := context.WithCancel(t.Context())
		a, b := x.publish(t.Context(), "a"), x.publish(ctx, "b")
		cancel()
		err := <-b
		require.ErrorIs(t, err, ErrLocalOnly)
		require.NotErrorIs(t, err, adapter.ErrUnsent)
		require.Equal(t, []string{"b"}, x.room.delivered)
		x.answer(answer{receivers: 1})
		require.NoError(t, <-a)
	})
	in(t, "delivers nothing when the hub ends", fallback, func(t *testing.T, x *tester) {
		x.end(adapter.ErrClosed)
		require.NotErrorIs(t, <-x.publish(t.Context(), "a"), ErrLocalOnly)
		require.Empty(t, x.room.frames)
	})
	in(t, "delivers nothing that is for an inbox", func(x *tester, o *Options) {
		fallback(x, o)
		o.Inbox = true
	}, func(t *testing.T, x *tester) {
		a := x.publish(t.Context(), "a")
		x.answer(answer{err: adapter.ErrRefused})
		require.NotErrorIs(t, <-a, ErrLocalOnly)
		require.Empty(t, x.room.frames)
	})
}

func TestChannelNotify(t *testing.T) {
	notify := func(ctx context.Context, x *tester) (receivers chan int, result chan error) {
		receivers, result = make(chan int, 1), make(chan error, 1)
		go func() {
			n, err := x.c.Notify(ctx, []byte("notice"))
			receivers <- n
			result <- err
		}()
		synctest.Wait()
		return receivers, result
	}
	in(t, "tells how many hubs it reached, also in its turn", slow, func(t *testing.T, x *tester) {
		receivers, result := notify(t.Context(), x)
		later, laterResult := notify(t.Context(), x)
		x.answer(answer{receivers: 3})
		require.NoError(t, <-result)
		require.Equal(t, 3, <-receivers)
		x.answer(answer{receivers: -1})
		require.NoError(t, <-laterResult)
		require.Equal(t, -1, <-later)
		require.Zero(t, x.counted.published.Load(), "it is no message")
	})
	in(t, "is not sent when its context ends before its turn", slow, func(t *testing.T, x *tester) {
		ctx, cancel := context.WithCancel(t.Context())
		a := x.publish(t.Context(), "a")
		_, result := notify(ctx, x)
		cancel()
		require.ErrorIs(t, <-result, context.Canceled)
		x.answer(answer{receivers: 1})
		require.NoError(t, <-a)
		require.Equal(t, 1, x.count())
	})
	in(t, "gives up unkept messages after Timeout", slow, func(t *testing.T, x *tester) {
		begun := time.Now()
		err := x.c.PublishUnkept(context.Background(), &wire.Message{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(begun), timeout)
	})
}
