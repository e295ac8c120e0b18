package migrate_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/stretchr/testify/require"
)

// A late adapter is an old backend that shows the commit only when its gate is
// closed.
type late struct {
	*memory.Adapter
	gate chan struct{}
}

func (l *late) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	page, err := l.Adapter.History(ctx, channel, q)
	for _, f := range page.Frames {
		if strings.HasPrefix(string(f.Frame), "migrate1 c") {
			select {
			case <-l.gate:
			case <-ctx.Done():
				return adapter.Page{}, ctx.Err()
			}
		}
	}
	return page, err
}

// A hub learns of the commit later than another one, which has published by
// then.
func TestHistoryWhileHubsFlip(t *testing.T) {
	inBubble(t, "has what other hubs have published after they flipped", func(t *testing.T) {
		keep := adapter.Retention{Messages: 100, Age: time.Hour}
		from, to := memory.NewBus(), memory.NewBus()
		everyone(t, from, 2)
		loseFlipped := func(_ context.Context, f memory.Frame) memory.Fate {
			return memory.Fate{Drop: strings.HasPrefix(f.Channel, "fanout:m:") && strings.Contains(string(f.Data), `"phase":3`)}
		}
		from.Intercept(loseFlipped)
		to.Intercept(loseFlipped)
		hub := func(old adapter.Adapter) *migrate.Adapter {
			a, err := migrate.New("test", old, to.NewAdapter(), &migrate.Options{Settle: time.Second})
			require.NoError(t, err)
			t.Cleanup(func() { _ = a.Close(context.Background()) })
			require.NoError(t, a.Attach(nobody{}))
			return a
		}
		gate := make(chan struct{})
		quick, slow := hub(from.NewAdapter()), hub(&late{from.NewAdapter(), gate})
		for quick.Status().Phase != migrate.Flipped {
			time.Sleep(10 * time.Millisecond)
		}
		r := adapter.Record{Frame: []byte("new"), Messages: 1, Keep: keep, Time: time.Now()}
		at, _, err := quick.Append(t.Context(), copied, r)
		require.NoError(t, err)
		require.Equal(t, migrate.Pausing, slow.Status().Phase)
		time.AfterFunc(time.Second, func() { close(gate) })
		require.Equal(t, []adapter.KeptFrame{{At: at, Frame: r.Frame}}, readCopy(t, slow, keep).Frames)
	})
}
