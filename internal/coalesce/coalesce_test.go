package coalesce

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// sender records batches; each send takes a token from gate if there is one.
type sender struct {
	wg      sync.WaitGroup
	gate    chan error
	mu      sync.Mutex
	batches [][]int
}

func (s *sender) Go(f func()) { s.wg.Go(f) }

func (s *sender) Keep(_ context.Context, item int) int { return item }

func (s *sender) Send(ctx context.Context, batch []int) error {
	s.mu.Lock()
	s.batches = append(s.batches, batch)
	s.mu.Unlock()
	if s.gate == nil {
		return nil
	}
	select {
	case err := <-s.gate:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type result struct {
	sent bool
	err  error
}

func do(q *Queue[int], ctx context.Context, item, bytes int) chan result {
	c := make(chan result, 1)
	go func() {
		sent, err := q.Do(ctx, item, bytes)
		c <- result{sent, err}
	}()
	synctest.Wait()
	return c
}

func TestIdleQueueSendsAtOnce(t *testing.T) {
	s := &sender{}
	q := &Queue[int]{Sender: s, Limit: 100}
	for n := range 3 {
		sent, err := q.Do(t.Context(), n, 1)
		require.NoError(t, err)
		require.True(t, sent)
	}
	require.Equal(t, [][]int{{0}, {1}, {2}}, s.batches)
}

func TestItemsGatherWhileOneSendIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sender{gate: make(chan error)}
		q := &Queue[int]{Sender: s, Limit: 10}
		var waits []chan result
		for n := range 8 {
			waits = append(waits, do(q, t.Context(), n, 3))
		}
		boom := errors.New("boom")
		s.gate <- nil
		s.gate <- boom
		s.gate <- nil
		s.gate <- nil
		for n, c := range waits {
			r := <-c
			require.True(t, r.sent)
			if n >= 1 && n <= 3 {
				require.Equal(t, boom, r.err, "everyone learns the error of the batch")
			} else {
				require.NoError(t, r.err)
			}
		}
		require.Equal(t, [][]int{{0}, {1, 2, 3}, {4, 5, 6}, {7}}, s.batches, "order is kept, batches are bounded")
		s.wg.Wait()
		require.False(t, q.busy)
	})
}

func TestCallerWhoLeavesBeforeTheSendIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sender{gate: make(chan error)}
		q := &Queue[int]{Sender: s, Limit: 100}
		first := do(q, t.Context(), 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		second, third := do(q, ctx, 2, 1), do(q, t.Context(), 3, 1)
		cancel()
		require.Equal(t, result{false, context.Canceled}, <-second)
		s.gate <- nil
		s.gate <- nil
		require.Equal(t, result{true, nil}, <-first)
		require.Equal(t, result{true, nil}, <-third)
		require.Equal(t, [][]int{{1}, {3}}, s.batches)
	})
}

func TestSendIsCancelledWhenAllCallersHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sender{gate: make(chan error)}
		q := &Queue[int]{Sender: s, Limit: 100}
		first := do(q, t.Context(), 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		second, third := do(q, ctx, 2, 1), do(q, ctx, 3, 1)
		s.gate <- nil // 2 and 3 are in flight now
		<-first
		synctest.Wait()
		cancel()
		require.Equal(t, result{true, context.Canceled}, <-second)
		require.Equal(t, result{true, context.Canceled}, <-third)
		s.wg.Wait() // Send has returned: its context ended
		fourth := do(q, t.Context(), 4, 1)
		s.gate <- nil
		require.Equal(t, result{true, nil}, <-fourth)
	})
}

func TestABatchThatAllHaveLeftHarmsNobodyWhoComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sender{gate: make(chan error)}
		q := &Queue[int]{Sender: s, Limit: 100}
		first := do(q, t.Context(), 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		second := do(q, ctx, 2, 100)
		cancel()
		require.Equal(t, result{false, context.Canceled}, <-second)
		third := do(q, t.Context(), 3, 1)
		s.gate <- nil
		s.gate <- nil
		require.Equal(t, result{true, nil}, <-first)
		require.Equal(t, result{true, nil}, <-third)
		require.Equal(t, [][]int{{1}, {3}}, s.batches)
	})
}

func TestOneCallersDeadlineDoesNotHarmTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sender{gate: make(chan error)}
		q := &Queue[int]{Sender: s, Limit: 100}
		first := do(q, t.Context(), 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		second, third := do(q, ctx, 2, 1), do(q, t.Context(), 3, 1)
		s.gate <- nil
		<-first
		synctest.Wait()
		cancel()
		require.Equal(t, result{true, context.Canceled}, <-second)
		s.gate <- nil
		require.Equal(t, result{true, nil}, <-third)
	})
}

func TestStorm(t *testing.T) {
	s := &sender{}
	q := &Queue[int]{Sender: s, Limit: 64}
	const callers, each = 16, 500
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for n := range each {
				if _, err := q.Do(t.Context(), c*each+n, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.wg.Wait()
	seen := make(map[int]bool)
	last := make([]int, callers)
	for i := range last {
		last[i] = -1
	}
	for _, b := range s.batches {
		require.LessOrEqual(t, len(b), 64)
		for _, item := range b {
			require.False(t, seen[item])
			seen[item] = true
			require.Greater(t, item, last[item/each], "each caller's items are in order")
			last[item/each] = item
		}
	}
	require.Len(t, seen, callers*each)
}
