package fanout_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

func connectUser(t testing.TB, h *fanout.Hub, user string) *fanout.Member {
	t.Helper()
	m, err := h.Connect(&fanout.MemberOptions{User: user})
	require.NoError(t, err)
	return m
}

func TestHubUser(t *testing.T) {
	t.Run("reaches the connections of a user on all hubs", func(t *testing.T) {
		bus := memory.NewBus()
		var hubs [3]*fanout.Hub
		for i := range hubs {
			hubs[i] = newHub(t, bus, nil)
		}
		ann := []*fanout.Member{connectUser(t, hubs[0], "ann"), connectUser(t, hubs[0], "ann"), connectUser(t, hubs[1], "ann")}
		bob := connectUser(t, hubs[1], "bob")
		for _, h := range hubs {
			require.NoError(t, h.Ready(within(t)))
		}
		require.NoError(t, hubs[2].User("ann").Publish(within(t), []byte("1")))
		require.NoError(t, hubs[2].User("ann", "bob", "nobody").Except(ann[0].ID()).Publish(within(t), []byte("2")))
		done := make(chan error, 1)
		require.NoError(t, hubs[0].User("ann").PublishAsync(within(t), []byte("3"), func(err error) { done <- err }))
		require.NoError(t, <-done)
		require.Equal(t, []string{"1", "3"}, receive(t, ann[0], 2))
		require.Equal(t, numbers(1, 3), receive(t, ann[1], 3))
		msg, err := ann[2].Receive(within(t))
		require.NoError(t, err)
		require.Empty(t, msg.Room)
		require.Equal(t, hubs[2].ID(), msg.Sender)
		require.Equal(t, numbers(2, 3), receive(t, ann[2], 2))
		require.Equal(t, []string{"2"}, receive(t, bob, 1))
		for _, m := range ann {
			require.Equal(t, "ann", m.User())
			require.Empty(t, m.Rooms())
		}
	})
	t.Run("works without a backend, from Connect on", func(t *testing.T) {
		h := newHub(t, nil, nil)
		m := connectUser(t, h, "ann")
		require.NoError(t, h.User("ann").Publish(within(t), []byte("1")))
		require.NoError(t, h.User("ann").Local().Publish(within(t), []byte("2")))
		require.Equal(t, numbers(1, 2), receive(t, m, 2))
		require.Empty(t, connect(t, h).User())
	})
	t.Run("stands when the first Join has returned", func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, nil), newHub(t, bus, nil)
		for n := range 20 {
			user := fmt.Sprint(n)
			m := connectUser(t, a, user)
			require.NoError(t, a.Room("x").Join(within(t), m))
			require.NoError(t, b.User(user).Publish(within(t), []byte("1")))
			require.Equal(t, []string{"1"}, receive(t, m, 1))
		}
	})
	t.Run("has nothing to do with rooms, whatever the name", func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, nil)
		for _, name := range []string{"x", "{x}", "r:{x}", "a b%7D*?[]", "🎈", strings.Repeat("x", 255)} {
			m := connectUser(t, h, name)
			require.NoError(t, h.Room(name).Join(within(t), m))
			require.NoError(t, h.User(name).Publish(within(t), []byte("user")))
			require.Equal(t, []string{"user"}, receive(t, m, 1))
			require.NoError(t, h.Room(name).Publish(within(t), []byte("room")))
			require.Equal(t, []string{"room"}, receive(t, m, 1))
			require.Equal(t, []string{name}, m.Rooms())
			require.NoError(t, h.Room(name).Leave(within(t), m))
			require.NoError(t, h.User(name).Publish(within(t), []byte("still")))
			require.Equal(t, []string{"still"}, receive(t, m, 1))
		}
	})
	t.Run("leaves nothing subscribed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			h := newHub(t, bus, &fanout.Options{Linger: time.Second})
			before := bus.Channels()
			one, two := connectUser(t, h, "ann"), connectUser(t, h, "ann")
			require.NoError(t, h.Ready(t.Context()))
			require.Equal(t, 1, bus.Subscribers("fanout:u:{ann}"))
			require.Equal(t, 1, h.Stats().Users)
			one.Close()
			time.Sleep(time.Minute)
			require.Equal(t, 1, bus.Subscribers("fanout:u:{ann}"))
			two.Close()
			require.Zero(t, h.Stats().Users)
			time.Sleep(time.Minute)
			require.Subset(t, append(before, "fanout:i:{"+h.ID()+"}", "fanout:a:{everyone}"), bus.Channels())
		})
	})
	t.Run("refuses names that no user has", func(t *testing.T) {
		h := newHub(t, nil, nil)
		long := strings.Repeat("x", 256)
		_, err := h.Connect(&fanout.MemberOptions{User: long})
		require.ErrorIs(t, err, fanout.ErrInvalidUser)
		_, err = h.Connect(&fanout.MemberOptions{User: "\xff"})
		require.ErrorIs(t, err, fanout.ErrInvalidUser)
		require.ErrorIs(t, h.User("").Publish(within(t), nil), fanout.ErrInvalidUser)
		require.ErrorIs(t, h.User().Publish(within(t), nil), fanout.ErrEmptySelection)
		require.ErrorContains(t, h.User(numbers(1, 1025)...).Publish(within(t), nil), "users")
	})
	t.Run("names the user in errors", func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, nil)
		require.NoError(t, h.Ready(within(t)))
		bus.Cut()
		defer bus.Heal()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		err := h.User("{ann}").Publish(ctx, nil)
		var p *fanout.PublishError
		require.ErrorAs(t, err, &p)
		require.Equal(t, "{ann}", p.User)
		require.ErrorContains(t, err, `publish to user "{ann}"`)
	})
	t.Run("reports what a user misses", func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, nil), newHub(t, bus, nil)
		m := connectUser(t, a, "ann")
		require.NoError(t, a.Ready(within(t)))
		user := b.User("ann")
		require.NoError(t, user.Publish(within(t), []byte("1")))
		require.Equal(t, []string{"1"}, receive(t, m, 1))
		bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			return memory.Fate{Drop: strings.HasPrefix(f.Channel, "fanout:u:")}
		})
		require.NoError(t, user.Publish(within(t), []byte("2")))
		bus.Intercept(nil)
		require.NoError(t, user.Publish(within(t), []byte("3")))
		_, err := m.Receive(within(t))
		require.Equal(t, &fanout.GapError{Missed: 1}, err)
		require.Equal(t, []string{"3"}, receive(t, m, 1))
	})
}

func TestHubReady(t *testing.T) {
	t.Run("waits for the backend", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := memory.NewBus()
			bus.Cut()
			h := newHub(t, bus, nil)
			m := connectUser(t, h, "ann")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, h.Ready(ctx), context.DeadlineExceeded)
			bus.Heal()
			require.NoError(t, h.Ready(t.Context()))
			require.NoError(t, h.User("ann").Publish(t.Context(), []byte("1")))
			require.NoError(t, h.To(m.ID()).Publish(t.Context(), []byte("2")))
			require.NoError(t, h.Everyone().Publish(t.Context(), []byte("3")))
			require.ElementsMatch(t, numbers(1, 3), receive(t, m, 3), "in no room at all")
		})
	})
	t.Run("fails when the backend refuses the channel of a user", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &userRefuser{Adapter: memory.NewBus().NewAdapter()}
			h := newHubOn(t, a, nil)
			m := connectUser(t, h, "ann")
			synctest.Wait()
			require.ErrorIs(t, h.Ready(t.Context()), fanout.ErrRefused)
			require.ErrorIs(t, h.Room("x").Join(t.Context(), m), fanout.ErrRefused)
			m.Close()
			require.NoError(t, h.Ready(t.Context()), "the member has ended")
		})
	})
	t.Run("says so while the next attempt hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &userRefuser{Adapter: memory.NewBus().NewAdapter(), once: true}
			h := newHubOn(t, a, nil)
			m := connectUser(t, h, "ann")
			time.Sleep(3 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, h.Ready(ctx), fanout.ErrRefused)
			require.ErrorIs(t, h.Room("x").Join(ctx, m), fanout.ErrRefused)
		})
	})
	t.Run("ends with the hub", func(t *testing.T) {
		h := newHub(t, nil, nil)
		require.NoError(t, h.Ready(within(t)))
		require.NoError(t, h.Close(within(t)))
		require.ErrorIs(t, h.Ready(within(t)), fanout.ErrClosed)
	})
}

// A userRefuser refuses the channels of users.
type userRefuser struct {
	*memory.Adapter
	once    bool // and then hangs
	refused atomic.Bool
}

func (a *userRefuser) Subscribe(ctx context.Context, channel string) error {
	if strings.HasPrefix(channel, "fanout:u:") {
		if a.refused.Swap(true) && a.once {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return fmt.Errorf("no rights: %w", adapter.ErrRefused)
	}
	return a.Adapter.Subscribe(ctx, channel)
}

func TestMemberSetInfo(t *testing.T) {
	h := newHub(t, nil, nil)
	info := []byte("old")
	m, err := h.Connect(&fanout.MemberOptions{Info: info})
	require.NoError(t, err)
	info[0] = 'x'
	require.Equal(t, "old", string(m.Info()))
	require.NoError(t, m.SetInfo([]byte("new")))
	require.Equal(t, "new", string(m.Info()))
	require.ErrorIs(t, m.SetInfo(make([]byte, fanout.MaxInfo+1)), fanout.ErrTooLarge)
	require.Equal(t, "new", string(m.Info()))
	_, err = h.Connect(&fanout.MemberOptions{Info: make([]byte, fanout.MaxInfo+1)})
	require.ErrorIs(t, err, fanout.ErrTooLarge)
}
