package loopback

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

// A receiver remembers what it gets, and that it is never called twice at a
// time for a channel.
type receiver struct {
	mu     sync.Mutex
	inside map[string]bool
	frames map[string][]string
	twice  bool
}

func (r *receiver) Interrupted(string) {}
func (r *receiver) Moving(string)      {}
func (r *receiver) Restored(string)    {}

func (r *receiver) Receive(channel string, frame []byte) {
	r.mu.Lock()
	r.twice = r.twice || r.inside[channel]
	r.inside[channel] = true
	r.frames[channel] = append(r.frames[channel], string(frame))
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.inside[channel] = false
		r.mu.Unlock()
	}()
}

func (r *receiver) ReceiveKept(channel string, f adapter.KeptFrame) { r.Receive(channel, f.Frame) }

func TestAdapter(t *testing.T) {
	ctx := context.Background()
	setUp := func(t *testing.T) (*Adapter, *receiver) {
		r := &receiver{inside: map[string]bool{}, frames: map[string][]string{}}
		l := New(func() {})
		require.NoError(t, l.Attach(r))
		return l, r
	}
	t.Run("delivers to what is subscribed", func(t *testing.T) {
		l, r := setUp(t)
		receivers, err := l.Publish(ctx, "a", []byte("nobody listens"))
		require.NoError(t, err)
		require.Zero(t, receivers)
		require.NoError(t, l.Subscribe(ctx, "a"))
		require.NoError(t, l.Subscribe(ctx, "a"))
		receivers, err = l.Publish(ctx, "a", []byte("heard"))
		require.NoError(t, err)
		require.Equal(t, 1, receivers)
		require.NoError(t, l.Unsubscribe(ctx, "a"))
		_, err = l.Publish(ctx, "a", []byte("too late"))
		require.NoError(t, err)
		require.Equal(t, map[string][]string{"a": {"heard"}}, r.frames)
	})
	t.Run("delivers one frame of a channel at a time", func(t *testing.T) {
		l, r := setUp(t)
		require.NoError(t, l.Subscribe(ctx, "a"))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					_, _ = l.Publish(ctx, "a", nil)
				}
			})
		}
		wg.Wait()
		require.False(t, r.twice)
		require.Len(t, r.frames["a"], 800)
	})
	t.Run("keeps a history", func(t *testing.T) {
		l, r := setUp(t)
		woken := 0
		l.wake = func() { woken++ }
		require.NoError(t, l.Subscribe(ctx, "a"))
		record := adapter.Record{Frame: []byte("kept"), Messages: 1, Time: time.Now(), Keep: adapter.Retention{Messages: 10, Age: time.Hour}, Publisher: "p", Stream: 1, Seq: 1}
		at, receivers, err := l.Append(ctx, "a", record)
		require.NoError(t, err)
		require.Equal(t, 1, receivers)
		require.EqualValues(t, 1, at.Offset)
		require.Equal(t, 1, woken)
		again, receivers, err := l.Append(ctx, "a", record)
		require.NoError(t, err)
		require.Equal(t, at, again, "it is known by its number")
		require.Negative(t, receivers)
		require.Equal(t, []string{"kept"}, r.frames["a"])
		page, err := l.History(ctx, "a", adapter.Query{Limit: 10, Bytes: 1 << 20, Keep: record.Keep})
		require.NoError(t, err)
		require.Equal(t, at, page.Head)
		require.Len(t, page.Frames, 1)
		require.False(t, l.Sweep(time.Now()).IsZero())
		l.Sweep(time.Now().Add(2 * time.Hour))
		page, err = l.History(ctx, "a", adapter.Query{Limit: 10, Bytes: 1 << 20, Keep: record.Keep})
		require.NoError(t, err)
		require.Empty(t, page.Frames)
	})
	t.Run("refuses everything once closed", func(t *testing.T) {
		l, _ := setUp(t)
		require.NoError(t, l.Close(ctx))
		require.ErrorIs(t, l.Subscribe(ctx, "a"), adapter.ErrClosed)
		_, err := l.Publish(ctx, "a", nil)
		require.ErrorIs(t, err, adapter.ErrClosed)
		require.True(t, errors.Is(err, adapter.ErrUnsent))
	})
}
