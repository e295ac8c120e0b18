package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

func TestOptionsAdmit(t *testing.T) {
	errBanned := errors.New("banned")
	t.Run("refuses a Join and a Resume", func(t *testing.T) {
		var asked atomic.Int64
		h := newHub(t, memory.NewBus(), &fanout.Options{
			Room: func(string) fanout.RoomOptions { return fanout.RoomOptions{Retain: fanout.Retention{Messages: 10}} },
			Admit: func(_ context.Context, room string, m *fanout.Member) error {
				asked.Add(1)
				if room == "secret" && m.User() != "ann" {
					return errBanned
				}
				return nil
			},
		})
		ann, bob := connectUser(t, h, "ann"), connectUser(t, h, "bob")
		for _, m := range []*fanout.Member{ann, bob} {
			require.NoError(t, h.Room("open").Join(within(t), m))
		}
		require.NoError(t, h.Room("secret").Resume(within(t), ann, fanout.Position{}))
		require.EqualValues(t, 3, asked.Load(), "once for each, and not for the channels of users")
		require.NoError(t, h.Room("secret").Join(within(t), ann), "it is in the room")
		require.EqualValues(t, 3, asked.Load())

		err := h.Room("secret").Join(within(t), bob)
		require.ErrorIs(t, err, errBanned)
		require.ErrorContains(t, err, `join room "secret"`)
		require.ErrorIs(t, h.Room("secret").Resume(within(t), bob, fanout.Position{}), errBanned)
		require.Equal(t, []string{"open"}, bob.Rooms())
		require.Equal(t, []*fanout.Member{ann}, h.Room("secret").Members())
	})
	t.Run("is not raced by Leave", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			admit := make(chan error)
			h := newHub(t, nil, &fanout.Options{Admit: func(context.Context, string, *fanout.Member) error { return <-admit }})
			m := connect(t, h)
			joined := make(chan error)
			go func() { joined <- h.Room("x").Join(context.Background(), m) }()
			synctest.Wait() // it is about to be admitted
			require.NoError(t, h.Room("x").Leave(t.Context(), m))
			admit <- nil
			require.ErrorIs(t, <-joined, fanout.ErrLeft)
			require.Empty(t, h.Room("x").Members())
		})
	})
	t.Run("may call the hub", func(t *testing.T) {
		var h *fanout.Hub
		h = newHub(t, nil, &fanout.Options{Admit: func(ctx context.Context, room string, m *fanout.Member) error {
			if len(h.Room(room).Members()) > 0 {
				return errBanned
			}
			return h.Room(room).Publish(ctx, []byte(m.ID()))
		}})
		require.NoError(t, h.Room("x").Join(within(t), connect(t, h)))
		require.ErrorIs(t, h.Room("x").Join(within(t), connect(t, h)), errBanned)
	})
	t.Run("may panic", func(t *testing.T) {
		panics := true
		h := newHub(t, nil, &fanout.Options{Admit: func(context.Context, string, *fanout.Member) error {
			if panics {
				panic("admit")
			}
			return nil
		}})
		m := connect(t, h)
		require.PanicsWithValue(t, "admit", func() { h.Room("x").Join(within(t), m) })
		panics = false
		require.NoError(t, h.Room("x").Join(within(t), m))
	})
}

func TestOptionsAdmitContext(t *testing.T) {
	type end struct {
		name string
		end  func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error
		err  error // of Room.Join
	}
	ends := []end{
		{"Room.Leave", func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error { return h.Room("slow").Leave(ctx, m) }, fanout.ErrLeft},
		{"Selection.Leave", func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error {
			return h.User("u").Leave(ctx, "slow")
		}, fanout.ErrLeft},
		{"Selection.Close", func(ctx context.Context, h *fanout.Hub, m *fanout.Member) error { return h.User("u").Close(ctx, "x") }, fanout.ErrClosed},
		{"Member.Close", func(_ context.Context, _ *fanout.Hub, m *fanout.Member) error { return m.Close() }, fanout.ErrClosed},
		{"Hub.Drain", func(ctx context.Context, h *fanout.Hub, _ *fanout.Member) error { return h.Drain(ctx) }, fanout.ErrClosed},
		{"Hub.Close", func(ctx context.Context, h *fanout.Hub, _ *fanout.Member) error { return h.Close(ctx) }, fanout.ErrClosed},
	}
	joins := map[string]func(other, h *fanout.Hub, m *fanout.Member) error{
		"Room.Join": func(_, h *fanout.Hub, m *fanout.Member) error { return h.Room("slow").Join(context.Background(), m) },
		"Selection.Join of another hub": func(other, _ *fanout.Hub, _ *fanout.Member) error {
			return other.User("u").Join(context.Background(), "slow")
		},
	}
	for name, join := range joins {
		for _, e := range ends {
			t.Run(name+" ends with "+e.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					asked := make(chan struct{}, 1)
					o := &fanout.Options{PublishTimeout: time.Hour, Admit: func(ctx context.Context, _ string, _ *fanout.Member) error {
						asked <- struct{}{}
						<-ctx.Done()
						return ctx.Err()
					}}
					bus := memory.NewBus()
					other, h := newHub(t, bus, nil), newHub(t, bus, o)
					m := connectUser(t, h, "u")
					require.NoError(t, h.Ready(t.Context()))
					time.Sleep(5 * time.Second) // the hubs know each other
					joined := make(chan error, 1)
					go func() { joined <- join(other, h, m) }()
					<-asked
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					defer cancel()
					require.NoError(t, e.end(ctx, h, m))
					synctest.Wait()
					require.Len(t, joined, 1)
					if err := <-joined; name == "Room.Join" {
						require.ErrorIs(t, err, e.err)
						require.NotErrorIs(t, err, context.Canceled)
					} else {
						require.NoError(t, err)
					}
				})
			})
		}
	}
	t.Run("ends when another Join brings the member into the room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			first := true
			h := newHub(t, nil, &fanout.Options{Admit: func(ctx context.Context, _ string, _ *fanout.Member) error {
				if first {
					first = false
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}})
			m := connect(t, h)
			joined := make(chan error, 1)
			go func() { joined <- h.Room("x").Join(context.Background(), m) }()
			synctest.Wait()
			require.NoError(t, h.Room("x").Join(t.Context(), m))
			require.NoError(t, <-joined)
			require.Equal(t, []string{"x"}, m.Rooms())
		})
	})
	t.Run("is named by a Close that waits for an Admit that ignores it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			asked, admit := make(chan struct{}, 1), make(chan struct{})
			bus := memory.NewBus()
			other := newHub(t, bus, nil)
			h := newHub(t, bus, &fanout.Options{Admit: func(context.Context, string, *fanout.Member) error {
				asked <- struct{}{}
				<-admit
				return nil
			}})
			connectUser(t, h, "u")
			require.NoError(t, h.Ready(t.Context()))
			time.Sleep(5 * time.Second)
			go other.User("u").Join(context.Background(), "slow")
			<-asked
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := h.Close(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "Options.Admit")
			close(admit)
		})
	})
}

func TestOptionsOnJoinOnLeave(t *testing.T) {
	// record returns options whose events are recorded for each member.
	record := func() (*fanout.Options, func(m *fanout.Member) []string) {
		var mu sync.Mutex
		got := make(map[*fanout.Member][]string)
		note := func(what string) func(string, *fanout.Member) {
			return func(room string, m *fanout.Member) {
				mu.Lock()
				defer mu.Unlock()
				got[m] = append(got[m], what+room)
			}
		}
		return &fanout.Options{OnJoin: note("+"), OnLeave: note("-")}, func(m *fanout.Member) []string {
			mu.Lock()
			defer mu.Unlock()
			return got[m]
		}
	}
	t.Run("are called in order, until the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o, got := record()
			h := newHub(t, nil, o)
			m := connectUser(t, h, "ann")
			for _, room := range []string{"x", "y"} {
				require.NoError(t, h.Room(room).Join(t.Context(), m))
				require.NoError(t, h.Room(room).Join(t.Context(), m))
			}
			require.NoError(t, h.Room("x").Leave(t.Context(), m))
			require.NoError(t, h.Room("x").Leave(t.Context(), m))
			m.Close()
			last := connect(t, h, "z")
			drained := connect(t, h, "z")
			require.NoError(t, h.Everyone().Publish(t.Context(), nil))
			synctest.Wait()
			require.Equal(t, []string{"+x", "+y", "-x", "-y"}, got(m))
			require.NoError(t, h.Room("z").Publish(t.Context(), nil))
			receive(t, drained, 2)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.Error(t, h.Drain(ctx))
			require.NoError(t, h.Close(t.Context()))
			require.Equal(t, []string{"+z", "-z"}, got(last))
			require.Equal(t, []string{"+z", "-z"}, got(drained), "once")
		})
	})
	t.Run("agree with what happened, however fast", func(t *testing.T) {
		o, got := record()
		h := newHub(t, memory.NewBus(), o)
		m := connect(t, h)
		inParallel(4, func(int) {
			for range 100 {
				if err := h.Room("x").Join(within(t), m); err != nil && !errors.Is(err, fanout.ErrLeft) {
					t.Error(err)
				}
				if err := h.Room("x").Leave(within(t), m); err != nil {
					t.Error(err)
				}
			}
		})
		require.NoError(t, h.Close(within(t)))
		for i, event := range got(m) {
			require.Equal(t, []string{"+x", "-x"}[i%2], event)
		}
		require.Zero(t, len(got(m))%2)
	})
	t.Run("may call the hub", func(t *testing.T) {
		var h *fanout.Hub
		h = newHub(t, nil, &fanout.Options{OnJoin: func(room string, m *fanout.Member) {
			h.Room(room).Publish(context.Background(), fmt.Appendf(nil, "%s is here", m.User()))
		}})
		ann := connectUser(t, h, "ann")
		require.NoError(t, h.Room("x").Join(within(t), ann))
		require.Equal(t, []string{"ann is here"}, receive(t, ann, 1))
	})
}

func TestRoomMembers(t *testing.T) {
	h := newHub(t, nil, nil)
	a, b := connect(t, h, "x"), connect(t, h, "x", "y")
	require.ElementsMatch(t, []*fanout.Member{a, b}, h.Room("x").Members())
	require.Equal(t, []*fanout.Member{b}, h.Room("y").Members())
	require.Empty(t, h.Room("nobody").Members())
	require.Empty(t, h.Room("").Members())
	b.Close()
	require.Equal(t, []*fanout.Member{a}, h.Room("x").Members())
}
