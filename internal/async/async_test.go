package async

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/stretchr/testify/require"
)

var errBroken = errors.New("broken")

// in runs a test with publishers whose buffer has room for two messages of one
// byte.
func in(t *testing.T, test func(t *testing.T, p *Publishers, ops *gate.Gate)) {
	synctest.Test(t, func(t *testing.T) {
		var p Publishers
		var wg sync.WaitGroup
		ops := gate.New()
		p.Init(&Env{
			Ops: ops, Open: t.Context(), Bounds: deadline.NewGroup(t.Context(), time.Second, context.DeadlineExceeded),
			Go: wg.Go, Explain: func(_ context.Context, err error) error { return err },
		}, 2*(MessageCost+1))
		test(t, &p, ops)
		wg.Wait()
	})
}

func TestPublishers(t *testing.T) {
	t.Run("are told, and their operations end then", func(t *testing.T) {
		in(t, func(t *testing.T, p *Publishers, ops *gate.Gate) {
			var told error
			a, err := p.Begin(t.Context(), 1, func(err error) { told = err })
			require.NoError(t, err)
			ops.Close()
			p.Tell([]Ack{a}, errBroken)
			<-ops.Empty()
			require.Equal(t, errBroken, told)
		})
	})
	t.Run("wait while the buffer is full", func(t *testing.T) {
		in(t, func(t *testing.T, p *Publishers, ops *gate.Gate) {
			acks, err := p.BeginAll(t.Context(), 2, 1, nil)
			require.NoError(t, err)
			begun := time.Now()
			_, err = p.Begin(t.Context(), 1, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, adapter.ErrUnsent)
			require.LessOrEqual(t, time.Since(begun), time.Second)
			p.Tell(acks, nil)
			a, err := p.Begin(t.Context(), 1, nil)
			require.NoError(t, err)
			p.Tell([]Ack{a}, nil)
		})
	})
	t.Run("of one message to several rooms are told once", func(t *testing.T) {
		in(t, func(t *testing.T, p *Publishers, ops *gate.Gate) {
			var told []error
			acks, err := p.BeginAll(t.Context(), 2, 1, func(err error) { told = append(told, err) })
			require.NoError(t, err)
			p.Tell(acks[:1], adapter.Unsent(errBroken))
			synctest.Wait()
			require.Empty(t, told)
			p.Tell(acks[1:], nil)
			synctest.Wait()
			require.Len(t, told, 1)
			require.ErrorIs(t, told[0], errBroken)
			require.NotErrorIs(t, told[0], adapter.ErrUnsent, "a part was sent")
		})
	})
	t.Run("cannot begin once the hub is closed, and take no room", func(t *testing.T) {
		in(t, func(t *testing.T, p *Publishers, ops *gate.Gate) {
			ops.Close()
			for range 3 {
				_, err := p.Begin(t.Context(), 1, nil)
				require.ErrorIs(t, err, adapter.ErrClosed)
				require.ErrorIs(t, err, adapter.ErrUnsent)
			}
		})
	})
}
