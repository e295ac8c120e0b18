package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// chatter publishes numbers to a room of h, in order and without a pause, until
// the test is over.
func chatter(t *testing.T, h *fanout.Hub, room string) {
	var over atomic.Bool
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for n := 1; !over.Load(); n++ {
			assert.NoError(t, h.Room(room).Publish(context.Background(), strconv.AppendInt(nil, int64(n), 10)))
		}
	})
	t.Cleanup(func() {
		over.Store(true)
		publisher.Wait()
	})
}

// For observers, a removal is one step.
func TestLeaveIsOneStep(t *testing.T) {
	t.Run("nothing arrives after any of two", func(t *testing.T) {
		h := newHub(t, nil, nil)
		m := connect(t, h)
		chatter(t, h, "x")
		var left atomic.Bool // a Leave of this round has returned
		var late atomic.Int64
		marked, next := make(chan struct{}), make(chan struct{})
		var reader sync.WaitGroup
		reader.Go(func() {
			buf := make([]fanout.Message, 16)
			for {
				over := left.Load()
				n, err := m.ReceiveBatch(context.Background(), buf)
				if gap := (*fanout.GapError)(nil); err != nil && !assert.ErrorAs(t, err, &gap) {
					return
				}
				for _, msg := range buf[:n] {
					switch string(msg.Data) {
					case "marker":
						marked <- struct{}{}
						<-next
					case "end":
						return
					default:
						if over {
							late.Add(1)
						}
					}
				}
			}
		})
		for range 3000 {
			require.NoError(t, h.Room("x").Join(within(t), m))
			inParallel(4, func(int) {
				assert.NoError(t, h.Room("x").Leave(context.Background(), m))
				left.Store(true)
			})
			require.NoError(t, h.To(m.ID()).Local().Publish(within(t), []byte("marker")))
			<-marked
			left.Store(false)
			next <- struct{}{}
		}
		require.NoError(t, h.To(m.ID()).Local().Publish(within(t), []byte("end")))
		reader.Wait()
		require.Zero(t, late.Load(), "messages of calls that began after a Leave had returned")
	})
	// storm has Leaves, Joins and Resumes that fail beside each other, and
	// counts what the member gets twice or out of order.
	storm := func(t *testing.T, h *fanout.Hub, join func(i int, m *fanout.Member) error) {
		m := connect(t, h)
		chatter(t, h, "x")
		var twice, inverted int
		var received, calls atomic.Int64
		var reader sync.WaitGroup
		reader.Go(func() {
			buf := make([]fanout.Message, 64)
			for last := 0; ; {
				n, err := m.ReceiveBatch(context.Background(), buf)
				if gap := (*fanout.GapError)(nil); err != nil && !assert.ErrorAs(t, err, &gap) {
					return
				}
				for _, msg := range buf[:n] {
					if string(msg.Data) == "end" {
						return
					}
					number, _ := strconv.Atoi(string(msg.Data))
					received.Add(1)
					switch {
					case number == last:
						twice++
					case number < last:
						inverted++
					}
					last = number
				}
			}
		})
		enough := int64(rounds(2000, 10_000))
		atMost := time.Duration(rounds(1, 5)) * time.Second
		inParallel(8, func(i int) {
			for begin := time.Now(); time.Since(begin) < atMost && (calls.Add(1) < enough || received.Load() < enough); {
				if i < 2 {
					for seen := received.Load(); received.Load() == seen && time.Since(begin) < atMost; {
						runtime.Gosched() // until something has come
					}
					assert.NoError(t, h.Room("x").Leave(context.Background(), m))
				} else if err := join(i, m); err != nil {
					assert.ErrorIs(t, err, fanout.ErrLeft)
				}
			}
		})
		require.NoError(t, h.To(m.ID()).Local().Publish(within(t), []byte("end")))
		reader.Wait()
		require.NotZero(t, received.Load())
		require.Zero(t, twice, "of %d", received.Load())
		require.Zero(t, inverted, "of %d", received.Load())
	}
	t.Run("a Join beside it is no second membership", func(t *testing.T) {
		h := newHub(t, nil, nil)
		storm(t, h, func(_ int, m *fanout.Member) error { return h.Room("x").Join(context.Background(), m) })
	})
	t.Run("beside Joins, and Resumes that fail, in a room with a history", func(t *testing.T) {
		h := newHub(t, memory.NewBus(), keeping(10))
		publish(t, h.Room("x"), 0, 0)
		ahead := position(t, h.Room("x"))
		ahead.Offset += 1 << 40
		storm(t, h, func(i int, m *fanout.Member) error {
			if i < 5 {
				return h.Room("x").Join(context.Background(), m)
			}
			err := h.Room("x").Resume(context.Background(), m, ahead)
			if errors.Is(err, fanout.ErrJoined) || errors.Is(err, fanout.ErrInvalidPosition) {
				return nil
			}
			return err
		})
	})
	t.Run("a Join that fails beside it leaves nothing", func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, &fanout.Options{Linger: -1})
		m := connect(t, h, "y")
		for range 500 {
			ctx, cancel := context.WithCancel(t.Context())
			inParallel(3, func(i int) {
				switch i {
				case 0:
					_ = h.Room("x").Join(ctx, m)
				case 1:
					cancel()
				default:
					assert.NoError(t, h.Room("x").Leave(context.Background(), m))
				}
			})
			require.NoError(t, h.Room("x").Leave(t.Context(), m))
			require.Equal(t, []string{"y"}, m.Rooms())
		}
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.Zero(c, bus.Subscribers("fanout:r:{x}"))
		}, 10*time.Second, time.Millisecond)
	})
}

// A call that ends a member that is being ended waits until the member is out
// of its rooms and its hub.
func TestCloseIsOneStep(t *testing.T) {
	const rooms = 100
	full := func(t *testing.T, h *fanout.Hub) *fanout.Member {
		m := connect(t, h)
		for n := range rooms {
			require.NoError(t, h.Room(fmt.Sprint("room", n)).Join(within(t), m))
		}
		return m
	}
	t.Run("beside another Close", func(t *testing.T) {
		h := newHub(t, nil, nil)
		for range 300 {
			m := full(t, h)
			inParallel(3, func(int) {
				assert.NoError(t, m.Close())
				assert.Empty(t, m.Rooms())
				assert.Zero(t, h.Stats().Members)
			})
		}
	})
	t.Run("beside an eviction", func(t *testing.T) {
		h := newHub(t, nil, &fanout.Options{Overflow: fanout.Disconnect, Window: fanout.Window{Messages: 1}})
		for range 300 {
			m := full(t, h)
			inParallel(2, func(i int) {
				if i == 0 {
					for range 3 {
						assert.NoError(t, h.Room("room0").Publish(context.Background(), []byte("1")))
					}
					return
				}
				<-m.Done()
				assert.NoError(t, m.Close())
				assert.Empty(t, m.Rooms())
				assert.Zero(t, h.Stats().Members)
			})
		}
	})
	t.Run("beside Hub.Close", func(t *testing.T) {
		for range 100 {
			h, err := fanout.New(nil, nil)
			require.NoError(t, err)
			m := full(t, h)
			inParallel(2, func(i int) {
				if i == 0 {
					assert.NoError(t, h.Close(context.Background()))
					return
				}
				<-m.Done()
				assert.NoError(t, m.Close())
				assert.Empty(t, m.Rooms())
				assert.Zero(t, h.Stats().Members)
			})
		}
	})
}

func TestLeaveOvertakesWhateverWaits(t *testing.T) {
	t.Run("a Join that waits for the hub's own channels", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			bus.Cut() // since the start
			h := newHub(t, bus, nil)
			m := connect(t, h)
			joined := make(chan error, 2)
			for range 2 {
				go func() { joined <- h.Room("x").Join(context.Background(), m) }()
			}
			synctest.Wait()
			require.NoError(t, h.Room("x").Leave(t.Context(), m))
			synctest.Wait()
			require.Len(t, joined, 2, "at once")
			bus.Heal()
			for range 2 {
				require.ErrorIs(t, <-joined, fanout.ErrLeft)
			}
			require.Empty(t, m.Rooms())
			require.NoError(t, h.Room("x").Join(within(t), m))
			require.Equal(t, []string{"x"}, m.Rooms())
		})
	})
	t.Run("a Resume that waits for the hub's own channels", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			bus.Cut()
			h := newHub(t, bus, keeping(10))
			m := connect(t, h)
			resumed := make(chan error, 1)
			go func() { resumed <- h.Room("x").Resume(context.Background(), m, fanout.Position{}) }()
			synctest.Wait()
			require.NoError(t, h.Room("x").Leave(t.Context(), m))
			synctest.Wait()
			require.Len(t, resumed, 1, "at once")
			require.ErrorIs(t, <-resumed, fanout.ErrLeft)
		})
	})
	for _, what := range []string{"Leave", "Close", "Hub.Close"} {
		t.Run(what+" beside a Resume that waits for a reading", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				o := keeping(100)
				o.Window = fanout.Window{Messages: 4}
				a, b := newHub(t, bus, o), newHub(t, bus, o)
				publish(t, a.Room("x"), 1, 50)
				connect(t, b, "x")
				unblock := blockReads(bus, "x")
				m := connect(t, b)
				resumed := make(chan error, 1)
				go func() { resumed <- b.Room("x").Resume(context.Background(), m, fanout.Position{}) }()
				synctest.Wait()
				require.Empty(t, resumed)
				want := fanout.ErrClosed
				switch what {
				case "Leave":
					require.NoError(t, b.Room("x").Leave(t.Context(), m))
					want = fanout.ErrLeft
				case "Close":
					require.NoError(t, m.Close())
				default:
					ended, cancel := context.WithCancel(t.Context())
					cancel()
					_ = b.Close(ended)
				}
				synctest.Wait()
				require.Len(t, resumed, 1, "at once")
				require.ErrorIs(t, <-resumed, want)
				unblock()
			})
		})
	}
	t.Run("Hub.Close beside a Join, though a publish is under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			node := bus.NewAdapter()
			h := newHubOn(t, node, nil)
			m := connect(t, h)
			synctest.Wait()
			node.Cut()
			sent, joined, closed := make(chan error, 1), make(chan error, 1), make(chan error, 1)
			go func() { sent <- h.Room("y").Publish(context.Background(), []byte("1")) }()
			go func() { joined <- h.Room("x").Join(context.Background(), m) }()
			synctest.Wait()
			go func() { closed <- h.Close(context.Background()) }()
			synctest.Wait()
			require.Len(t, joined, 1, "at once")
			require.ErrorIs(t, <-joined, fanout.ErrClosed)
			require.Empty(t, closed, "a publish that has begun is finished")
			require.ErrorIs(t, <-sent, context.DeadlineExceeded)
			require.NoError(t, <-closed)
		})
	})
}
