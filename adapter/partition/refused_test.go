package partition_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/stretchr/testify/require"
)

// A scripted adapter publishes and subscribes with the given outcome on the
// channel to everyone.
type scripted struct {
	*memory.Adapter
	pause time.Duration // before it subscribes
	err   error
}

const everyone = "fanout:a:{all}"

func (s *scripted) Publish(ctx context.Context, channel string, frame []byte) (int, error) {
	if channel == everyone && s.err != nil {
		return 0, s.err
	}
	return s.Adapter.Publish(ctx, channel, frame)
}

func (*scripted) PublishAsync(string, []byte, adapter.Completion) bool { return false }

func (s *scripted) Subscribe(ctx context.Context, channel string) error {
	if channel == everyone {
		time.Sleep(s.pause)
		if s.err != nil {
			return s.err
		}
	}
	return s.Adapter.Subscribe(ctx, channel)
}

// What has copies is refused only if all partitions refuse it.
func TestRefusedCopies(t *testing.T) {
	var (
		refused = adapter.Unsent(adapter.ErrRefused)
		failed  = adapter.Unsent(errors.New("no link"))
	)
	on := func(t *testing.T, p, q scripted) *partition.Adapter {
		p.Adapter, q.Adapter = memory.NewBus().NewAdapter(), memory.NewBus().NewAdapter()
		return attached(t, new(sink), partition.Partition{Name: "p", Adapter: &p}, partition.Partition{Name: "q", Adapter: &q})
	}
	for name, tt := range map[string]struct {
		p, q    error
		refused bool
	}{
		"a publish that one refuses and the other fails may be repeated": {refused, failed, false},
		"a publish that both refuse is refused":                          {refused, refused, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := on(t, scripted{err: tt.p}, scripted{err: tt.q})
				_, err := a.Publish(t.Context(), everyone, []byte("x"))
				require.ErrorIs(t, err, adapter.ErrUnsent)
				require.Equal(t, tt.refused, errors.Is(err, adapter.ErrRefused), "%v", err)
			})
		})
	}
	t.Run("a subscription that one refuses waits for the other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := on(t, scripted{err: refused}, scripted{pause: time.Second})
			require.NoError(t, a.Subscribe(t.Context(), everyone))
		})
	})
	t.Run("a subscription that both refuse is refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := on(t, scripted{err: refused}, scripted{err: refused, pause: time.Second})
			require.ErrorIs(t, a.Subscribe(t.Context(), everyone), adapter.ErrRefused)
		})
	})
}
