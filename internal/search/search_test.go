package search_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/search"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

const channel = "fanout:r:{room}"

func frame(seq uint64) []byte {
	b := wire.AppendHeader(nil, &wire.Header{Hub: 1, Stream: 1, Seq: seq, Count: 1})
	return wire.AppendMessage(b, &wire.Message{Data: []byte("x")})
}

func record(frame []byte) adapter.Record {
	return adapter.Record{
		Frame: frame, Messages: 1, Time: time.Now(),
		Keep: adapter.Retention{Messages: 2000, Age: time.Hour},
	}
}

func TestFrame(t *testing.T) {
	a := memory.NewBus().NewAdapter()
	defer a.Close(t.Context())
	var at []adapter.Position
	for seq := range uint64(1500) {
		p, _, err := a.Append(t.Context(), channel, record(frame(seq+1)))
		require.NoError(t, err)
		at = append(at, p)
	}
	pages := 0
	read := func(ctx context.Context, q adapter.Query) (adapter.Page, error) {
		pages++
		return a.History(ctx, channel, q)
	}
	find := func(frame []byte) adapter.Position {
		pages = 0
		r := record(frame)
		p, err := search.Frame(t.Context(), &r, read)
		require.NoError(t, err)
		return p
	}
	t.Run("finds the first, one of a later page, and the last", func(t *testing.T) {
		for _, seq := range []uint64{1, 1000, 1500} {
			require.Equal(t, at[seq-1], find(frame(seq)))
		}
		require.Equal(t, 3, pages)
	})
	t.Run("finds a frame that is sent again", func(t *testing.T) {
		require.Equal(t, at[699], find(wire.Again(frame(700), true, 0)))
	})
	t.Run("does not find what is not there", func(t *testing.T) {
		require.Zero(t, find(frame(1501)))
		require.Equal(t, 3, pages)
	})
	t.Run("returns the error of the history", func(t *testing.T) {
		broken, r := errors.New("broken"), record(frame(1))
		_, err := search.Frame(t.Context(), &r, func(context.Context, adapter.Query) (adapter.Page, error) {
			return adapter.Page{}, broken
		})
		require.ErrorIs(t, err, broken)
	})
	t.Run("ends at a history that does not go on", func(t *testing.T) {
		r := record(frame(1501))
		p, err := search.Frame(t.Context(), &r, func(ctx context.Context, q adapter.Query) (adapter.Page, error) {
			q.Since = adapter.Position{}
			return a.History(ctx, channel, q)
		})
		require.NoError(t, err)
		require.Zero(t, p)
	})
}
