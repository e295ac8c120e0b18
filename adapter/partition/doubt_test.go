package partition_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A frame may have been kept, and the next attempt fails for certain.
func TestDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		w := &restarts{t: t, buses: make(map[string]*memory.Bus)}
		w.start([]string{"p0"})
		w.say()
		r := adapter.Record{Frame: []byte("6"), Messages: 1, Keep: movedKeep, Time: time.Now(), Publisher: "me", Stream: 1, Seq: 1}
		fate := memory.Fate{Err: fmt.Errorf("lost on the way back")}
		w.buses["p0"].Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if f.Channel != movedChannel {
				return memory.Fate{}
			}
			return fate
		})
		_, _, err := w.a.Append(t.Context(), movedChannel, r)
		require.Error(t, err)
		fate = memory.Fate{Refuse: true, Err: adapter.Unsent(fmt.Errorf("full"))}
		_, _, err = w.a.Append(t.Context(), movedChannel, r)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		w.buses["p0"].Intercept(nil)
		w.said++
		w.change([]string{"p0", name})
		_, n, err := w.a.Append(t.Context(), movedChannel, r)
		require.NoError(t, err)
		require.Equal(t, -1, n)
		w.check()
	})
}

// A strict adapter refuses, as that of Redis does, a frame that is sent for the
// first time and that the history has.
type strict struct{ *memory.Adapter }

func (s strict) Append(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
	at, n, err := s.Adapter.Append(ctx, channel, r)
	if err == nil && n == -1 && wire.IsFirst(r.Frame) {
		return at, 0, adapter.Unsent(fmt.Errorf("%w: %w", adapter.ErrBrokenHistory, adapter.ErrRefused))
	}
	return at, n, err
}

// A frame that may have been kept, by its first attempt, is recognised after
// its room has moved.
func TestFirstAttemptInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, name := memory.NewBus(), newcomer("p0", "room")
		a := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: strict{bus.NewAdapter()}})
		frame := wire.AppendHeader(nil, &wire.Header{Hub: 1, Time: 1, Stream: 1, Seq: 1, Count: 1})
		frame = wire.AppendMessage(frame, &wire.Message{Data: []byte("x")})
		r := adapter.Record{Frame: frame, Messages: 1, Keep: movedKeep, Time: time.Now(), Publisher: "me", Stream: 1, Seq: 1}
		bus.Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
			if f.Channel == movedChannel {
				fate.Err = fmt.Errorf("lost on the way back")
			}
			return fate
		})
		_, _, err := a.Append(t.Context(), movedChannel, r)
		require.Error(t, err)
		bus.Intercept(nil)
		require.NoError(t, a.Change(t.Context(), []partition.Partition{{Name: "p0"}, {Name: name, Adapter: strict{memory.NewBus().NewAdapter()}}}))
		r.Frame = wire.Again(frame, true, 0)
		_, n, err := a.Append(t.Context(), movedChannel, r)
		require.NoError(t, err)
		require.Equal(t, -1, n)
		page, err := a.History(t.Context(), movedChannel, adapter.Query{Limit: 100, Keep: movedKeep, Time: time.Now()})
		require.NoError(t, err)
		require.Len(t, page.Frames, 1)
	})
}

// The link that makes an Append uncertain is still broken when the room moves.
// Another hub copies the history, and the frame is in it once.
func TestDoubtBehindABrokenLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, after, name := memory.NewBus(), memory.NewBus(), newcomer("p0", "room")
		link := bus.NewAdapter()
		cut := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: link})
		other := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: bus.NewAdapter()})
		r := adapter.Record{Frame: []byte("x"), Messages: 1, Keep: movedKeep, Time: time.Now(), Publisher: "me", Stream: 1, Seq: 1}
		_, _, err := cut.Append(t.Context(), movedChannel, r)
		require.NoError(t, err)
		read := func(a *partition.Adapter) adapter.Page {
			page, err := a.History(t.Context(), movedChannel, adapter.Query{Limit: 100, Keep: movedKeep, Time: time.Now()})
			require.NoError(t, err)
			return page
		}
		read(other)
		link.CutInbound()
		r.Seq++
		r.Frame = []byte("y")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 2)
		_, _, err = link.Append(ctx, movedChannel, r) // as the adapter does before it is deaf
		require.Error(t, err)
		require.NotErrorIs(t, err, adapter.ErrUnsent)
		link.Heal()
		bus.Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
			if f.Channel == movedChannel && f.From == link {
				fate.Refuse, fate.Err = true, fmt.Errorf("nobody knows")
			}
			return fate
		})
		_, _, err = cut.Append(ctx, movedChannel, r)
		require.Error(t, err)
		for _, a := range []*partition.Adapter{cut, other} {
			go func() {
				done <- a.Change(ctx, []partition.Partition{{Name: "p0"}, {Name: name, Adapter: after.NewAdapter()}})
			}()
		}
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		at, n, err := cut.Append(ctx, movedChannel, r)
		require.NoError(t, err)
		require.Equal(t, -1, n)
		page := read(cut)
		require.Len(t, page.Frames, 2)
		require.Equal(t, at, page.Frames[1].At)
	})
}
