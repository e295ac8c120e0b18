package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// takeAll calls TryReceiveBatch until there is nothing, or the member has
// ended.
func takeAll(t testing.TB, m *fanout.Member) (got []string, final error) {
	t.Helper()
	buf := make([]fanout.Message, 4)
	for {
		n, err := m.TryReceiveBatch(buf)
		switch {
		case errors.Is(err, fanout.ErrClosed), errors.Is(err, fanout.ErrSlow):
			return got, err
		case err != nil:
			got = append(got, show(t, fanout.Message{}, err))
		case n == 0:
			return got, nil
		}
		for _, msg := range buf[:n] {
			got = append(got, string(msg.Data))
		}
	}
}

func TestMemberTryReceiveBatch(t *testing.T) {
	h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 8}})
	m := connect(t, h, "x", "y")
	t.Run("returns nothing when there is nothing", func(t *testing.T) {
		n, err := m.TryReceiveBatch(make([]fanout.Message, 1))
		require.NoError(t, err)
		require.Zero(t, n)
	})
	t.Run("returns messages and gaps", func(t *testing.T) {
		publish(t, h.Room("x"), 1, 10)
		publish(t, h.Room("y"), 11, 13)
		got, final := takeAll(t, m)
		require.NoError(t, final)
		require.Equal(t, 2+8+3-1, len(got), got)
		require.Contains(t, got, "gap 2")
	})
	t.Run("refuses an empty buffer, and a second receiver", func(t *testing.T) {
		_, err := m.TryReceiveBatch(nil)
		require.Error(t, err)
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t, nil, nil)
			m := connect(t, h)
			go m.Receive(context.Background())
			synctest.Wait()
			_, err := m.TryReceiveBatch(make([]fanout.Message, 1))
			require.ErrorIs(t, err, fanout.ErrConcurrentReceive)
		})
	})
	t.Run("returns the final error", func(t *testing.T) {
		m.Close()
		_, final := takeAll(t, m)
		require.ErrorIs(t, final, fanout.ErrClosed)
	})
	t.Run("ends a member that is too slow", func(t *testing.T) {
		h := newHub(t, memory.NewBus(), &fanout.Options{Window: fanout.Window{Messages: 1}, Overflow: fanout.Disconnect})
		m := connect(t, h, "x")
		publish(t, h.Room("x"), 1, 9)
		<-m.Done()
		_, final := takeAll(t, m)
		require.ErrorIs(t, final, fanout.ErrSlow)
		require.Empty(t, m.Rooms())
	})
}

func TestMemberReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, nil, nil)
		m := connect(t, h, "x")
		isReady := func() bool {
			synctest.Wait()
			select {
			case <-m.Ready():
				return true
			default:
				return false
			}
		}
		publish(t, h.Room("x"), 1, 1)
		require.True(t, isReady(), "from before the first call")
		require.False(t, isReady(), "once")
		publish(t, h.Room("x"), 2, 2)
		require.False(t, isReady(), "until it was received")
		got, _ := takeAll(t, m)
		require.Equal(t, numbers(1, 2), got)
		publish(t, h.Room("x"), 3, 3)
		require.True(t, isReady())
		takeAll(t, m)
		require.False(t, isReady())
		m.Close()
		require.True(t, isReady(), "when the member ends")
		_, final := takeAll(t, m)
		require.ErrorIs(t, final, fanout.ErrClosed)
	})
}

func TestMemberOnReady(t *testing.T) {
	// onReady returns a member in room x, and how often OnReady was called.
	onReady := func(t *testing.T, h *fanout.Hub) (*fanout.Member, *atomic.Int64) {
		calls := new(atomic.Int64)
		m, err := h.Connect(&fanout.MemberOptions{OnReady: func(*fanout.Member) { calls.Add(1) }})
		require.NoError(t, err)
		require.NoError(t, h.Room("x").Join(within(t), m))
		return m, calls
	}
	t.Run("is called once until everything was received", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t, nil, nil)
			m, calls := onReady(t, h)
			require.NoError(t, h.Room("y").Join(t.Context(), m))
			require.Nil(t, m.Ready())
			require.Zero(t, calls.Load())
			for range 3 {
				before := calls.Load()
				publish(t, h.Room("x"), 1, 9)
				publish(t, h.Room("y"), 1, 9)
				synctest.Wait()
				require.Equal(t, before+1, calls.Load())
				_, err := m.TryReceiveBatch(make([]fanout.Message, 1))
				require.NoError(t, err)
				publish(t, h.Room("y"), 1, 1)
				synctest.Wait()
				require.Equal(t, before+1, calls.Load())
				got, _ := takeAll(t, m)
				require.Len(t, got, 18)
			}
		})
	})
	t.Run("is called for direct messages, in no room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t, nil, nil)
			calls := make(chan *fanout.Member, 1)
			m, err := h.Connect(&fanout.MemberOptions{OnReady: func(m *fanout.Member) { calls <- m }})
			require.NoError(t, err)
			require.NoError(t, h.To(m.ID()).Publish(t.Context(), []byte("direct")))
			got, _ := takeAll(t, <-calls)
			require.Equal(t, []string{"direct"}, got)
		})
	})
	t.Run("is called at the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(t, nil, nil)
			m, calls := onReady(t, h)
			m.Close()
			synctest.Wait()
			require.EqualValues(t, 1, calls.Load())
		})
	})
	t.Run("is called when the hub drains", func(t *testing.T) {
		h := newHub(t, nil, nil)
		finals := make(chan error, 2)
		m, err := h.Connect(&fanout.MemberOptions{OnReady: func(m *fanout.Member) {
			if _, final := takeAll(t, m); final != nil {
				finals <- final
			}
		}})
		require.NoError(t, err)
		require.NoError(t, h.Room("x").Join(within(t), m))
		publish(t, h.Room("x"), 1, 1)
		require.NoError(t, h.Drain(within(t)))
		requireDrained(t, m.Err())
	})
	t.Run("may call the hub", func(t *testing.T) {
		h := newHub(t, memory.NewBus(), nil)
		closed := make(chan struct{})
		m, err := h.Connect(&fanout.MemberOptions{OnReady: func(m *fanout.Member) {
			if _, final := takeAll(t, m); final != nil {
				close(closed)
				return
			}
			m.Close()
		}})
		require.NoError(t, err)
		require.NoError(t, h.Room("x").Join(within(t), m))
		publish(t, h.Room("x"), 1, 1)
		<-closed
	})
	t.Run("loses no message to workers", func(t *testing.T) {
		const members, messages = 50, 400
		h := newHub(t, memory.NewBus(), &fanout.Options{Window: fanout.Window{Messages: messages}})
		work := make(chan *fanout.Member, members)
		var received sync.WaitGroup
		received.Add(members * messages)
		for range members {
			m, err := h.Connect(&fanout.MemberOptions{OnReady: func(m *fanout.Member) { work <- m }})
			require.NoError(t, err)
			require.NoError(t, h.Room("x").Join(within(t), m))
		}
		var workers sync.WaitGroup
		for range 4 {
			workers.Go(func() {
				for m := range work {
					got, _ := takeAll(t, m)
					received.Add(-len(got))
				}
			})
		}
		inParallel(4, func(int) {
			for n := range messages / 4 {
				require.NoError(t, h.Room("x").Publish(within(t), fmt.Append(nil, n)))
			}
		})
		received.Wait()
		require.NoError(t, h.Close(within(t)))
		close(work)
		workers.Wait()
	})
}
