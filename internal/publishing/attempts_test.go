package publishing

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

func TestChannelRetry(t *testing.T) {
	unsent := adapter.Unsent(errBroken)
	in(t, "marks a frame that may have arrived", slow, func(t *testing.T, x *tester) {
		a := x.publish(t.Context(), "a")
		for range 2 {
			x.answer(answer{err: unsent})
			time.Sleep(time.Second)
			synctest.Wait()
		}
		x.answer(answer{err: errBroken})
		time.Sleep(time.Second)
		x.answer(answer{receivers: 1})
		require.NoError(t, <-a)
		for i, first := range []bool{true, true, true, false} {
			require.Equal(t, first, wire.IsFirst(x.sent[i]), "attempt %d", i)
			x.wantSent(i, 1, "a")
		}
	})
	for _, c := range []struct {
		name   string
		err    error
		unsent bool
	}{
		{"ends with ErrRefused", fmt.Errorf("%w: %w", adapter.ErrRefused, errBroken), false},
		{"ends with ErrClosed", fmt.Errorf("%w: %w", adapter.ErrClosed, errBroken), false},
		{"ends with ErrRefused that has sent nothing", adapter.Unsent(fmt.Errorf("%w: %w", adapter.ErrRefused, errBroken)), true},
	} {
		in(t, c.name, slow, func(t *testing.T, x *tester) {
			a := x.publish(t.Context(), "a")
			x.answer(answer{err: c.err})
			err := <-a
			require.ErrorIs(t, err, errBroken)
			require.Equal(t, c.unsent, errors.Is(err, adapter.ErrUnsent))
			b := x.publish(t.Context(), "b")
			x.answer(answer{receivers: 1})
			require.NoError(t, <-b)
			if c.unsent {
				x.wantSent(1, 1, "b")
			} else {
				x.wantSent(1, 2, "b")
			}
		})
	}
	in(t, "does not say unsent after an attempt that may have arrived", slow, func(t *testing.T, x *tester) {
		a := x.publish(t.Context(), "a")
		x.answer(answer{err: errBroken})
		time.Sleep(time.Second)
		x.answer(answer{err: adapter.Unsent(adapter.ErrRefused)})
		err := <-a
		require.ErrorIs(t, err, adapter.ErrRefused)
		require.NotErrorIs(t, err, adapter.ErrUnsent)
	})
	in(t, "ends with the context, and says what failed", slow, func(t *testing.T, x *tester) {
		ctx, cancel := context.WithCancel(t.Context())
		a := x.publish(ctx, "a")
		x.answer(answer{err: unsent})
		cancel()
		err := <-a
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		require.ErrorContains(t, err, "(last: broken)")
		require.ErrorContains(t, err, "(link down)")
	})
	in(t, "says what failed also if the context cuts an attempt off", slow, func(t *testing.T, x *tester) {
		ctx, cancel := context.WithCancel(t.Context())
		a := x.publish(ctx, "a")
		x.answer(answer{err: errBroken})
		time.Sleep(time.Second)
		synctest.Wait()
		cancel()
		require.ErrorContains(t, <-a, "(last: broken)")
		require.Equal(t, 1, x.ended)
	})
	in(t, "ends with the hub", slow, func(t *testing.T, x *tester) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		a := x.publish(ctx, "a")
		x.answer(answer{err: errBroken})
		x.end(adapter.ErrClosed)
		err := <-a
		require.ErrorIs(t, err, adapter.ErrClosed)
		require.ErrorContains(t, err, "(last: broken)")
		require.Equal(t, 1, x.count())
	})
	in(t, "repeats a notice as it is", slow, func(t *testing.T, x *tester) {
		result := make(chan error, 1)
		go func() {
			_, err := x.c.Notify(t.Context(), []byte("notice"))
			result <- err
		}()
		synctest.Wait()
		x.answer(answer{err: errBroken})
		time.Sleep(time.Second)
		x.answer(answer{receivers: 1})
		require.NoError(t, <-result)
		require.Equal(t, [][]byte{[]byte("notice"), []byte("notice")}, x.sent)
	})
}
