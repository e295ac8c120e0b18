package lookout

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/watch"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A hub reaches the others at once.
type hub struct {
	Lookout
	dead atomic.Bool
	end  context.CancelFunc

	mu                     sync.Mutex // guards all below
	came, left, died, back int
}

// A channel sends to some hubs.
type channel struct {
	from *hub
	to   []*hub
}

func (c channel) Hold()    {}
func (c channel) Release() {}

func (c channel) Notify(_ context.Context, notice []byte) (receivers int, err error) {
	from, payload, err := wire.DecodeControl(notice)
	if err != nil || c.from.dead.Load() {
		return 0, err
	}
	p, err := control.Decode(payload)
	for _, h := range c.to {
		if err == nil && !h.dead.Load() {
			receivers++
			h.Receive(from, p)
		}
	}
	return receivers, err
}

// in runs a test with n hubs, numbered from 1, that have heard of each other.
func in(t *testing.T, n int, test func(t *testing.T, hubs []*hub)) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		hubs := make([]*hub, n)
		for i := range hubs {
			hubs[i] = new(hub)
		}
		own := make(chan struct{})
		for i, h := range hubs {
			ctx, cancel := context.WithCancel(context.Background())
			h.end = cancel
			send := &notices.Sender{
				Hub: uint64(i + 1), Context: ctx, Go: wg.Go,
				Everyone: func() notices.Channel { return channel{h, hubs} },
				Inbox:    func(hub uint64) notices.Channel { return channel{h, hubs[hub-1 : hub]} },
			}
			h.Init(&Env{
				Notices: send,
				Reply: func(to uint64, p control.Payload) {
					wg.Go(func() { _ = send.NotifyHub(to, send.Frame(p)) })
				},
				Changed: func(a *watch.Actions) {
					h.mu.Lock()
					defer h.mu.Unlock()
					h.came, h.left, h.died = h.came+len(a.Came), h.left+len(a.Left), h.died+len(a.Died)
					if a.Back {
						h.back++
					}
				},
			})
			wg.Go(func() { h.Run(own) })
		}
		close(own)
		time.Sleep(time.Second)
		defer wg.Wait()
		defer func() {
			for _, h := range hubs {
				h.end()
			}
		}()
		test(t, hubs)
	})
}

// require checks how many hubs a hub has seen come, leave and die.
func (h *hub) require(t *testing.T, came, left, died int) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	require.Equal(t, []int{came, left, died}, []int{h.came, h.left, h.died})
}

func TestLookout(t *testing.T) {
	up := func() bool { return false }
	t.Run("finds the other hubs", func(t *testing.T) {
		in(t, 3, func(t *testing.T, hubs []*hub) {
			for i, h := range hubs {
				h.require(t, 2, 0, 0)
				others := h.Others(map[uint64]time.Time{9: time.Now()})
				require.Len(t, others, 3, "one of an earlier release, too")
				require.NotContains(t, others, uint64(i+1))
				require.True(t, h.IsWatched(1+uint64(i+1)%3))
				require.False(t, h.IsWatched(9), "one of an earlier release")
			}
		})
	})
	t.Run("notices that a hub is dead", func(t *testing.T) {
		in(t, 3, func(t *testing.T, hubs []*hub) {
			hubs[2].dead.Store(true)
			time.Sleep(4 * time.Second)
			for _, h := range hubs[:2] {
				h.require(t, 2, 0, 1)
				require.True(t, h.IsGone(3))
				require.False(t, h.IsWatched(3))
				require.NotContains(t, h.Others(map[uint64]time.Time{3: time.Now()}), uint64(3))
			}
			t.Log("and that it is back")
			hubs[2].dead.Store(false)
			hubs[2].Restored()
			time.Sleep(4 * time.Second)
			for _, h := range hubs[:2] {
				require.False(t, h.IsGone(3))
			}
			hubs[2].mu.Lock()
			defer hubs[2].mu.Unlock()
			require.Positive(t, hubs[2].back)
		})
	})
	t.Run("tells others that the hub closes", func(t *testing.T) {
		in(t, 3, func(t *testing.T, hubs []*hub) {
			hubs[2].Leave(t.Context(), up)
			hubs[2].Leave(t.Context(), up)
			hubs[0].require(t, 2, 1, 0)
			require.True(t, hubs[0].IsGone(3))
		})
	})
	t.Run("tells others that the hub closes before it has said hello", func(t *testing.T) {
		in(t, 2, func(t *testing.T, hubs []*hub) {
			young := new(hub)
			young.Init(&Env{
				Notices: &notices.Sender{
					Hub: 3, Context: t.Context(),
					Everyone: func() notices.Channel { return channel{young, hubs} },
				},
				Changed: func(*watch.Actions) {},
			})
			young.Leave(t.Context(), up)
			young.Leave(t.Context(), up)
			own := make(chan struct{})
			close(own)
			ended, end := context.WithCancel(t.Context())
			young.env.Notices.Context = ended
			time.AfterFunc(time.Second, end)
			young.Run(own) // it has left, and says nothing
			for _, h := range hubs {
				h.require(t, 1, 1, 0)
				require.True(t, h.IsGone(3))
			}
		})
	})
	t.Run("tells nobody while the backend is down", func(t *testing.T) {
		in(t, 2, func(t *testing.T, hubs []*hub) {
			hubs[1].Leave(t.Context(), func() bool { return true })
			hubs[0].require(t, 1, 0, 0)
		})
	})
}
