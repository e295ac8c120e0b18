package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// A hub whose link is down for a moment is not counted, and still gets the
// command.
func TestCommandReachesAHubWhoseLinkBreaksForAMoment(t *testing.T) {
	for name, command := range map[string]func(h *fanout.Hub, ctx context.Context, id string) error{
		"close a room":   func(h *fanout.Hub, ctx context.Context, _ string) error { return h.In("x").Close(ctx, "banned") },
		"close a member": func(h *fanout.Hub, ctx context.Context, id string) error { return h.To(id).Close(ctx, "banned") },
		"close a user":   func(h *fanout.Hub, ctx context.Context, _ string) error { return h.User("bob").Close(ctx, "banned") },
		"leave":          func(h *fanout.Hub, ctx context.Context, _ string) error { return h.In("x").Leave(ctx, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				link := bus.NewAdapter()
				a, b := newHub(t, bus, nil), newHubOn(t, link, nil)
				bob, err := b.Connect(&fanout.MemberOptions{User: "bob"})
				require.NoError(t, err)
				require.NoError(t, b.Room("x").Join(within(t), bob))
				time.Sleep(5 * time.Second)
				link.Cut()
				time.AfterFunc(300*time.Millisecond, link.Heal)
				require.NoError(t, command(a, within(t), bob.ID()))
				synctest.Wait()
				require.Empty(t, bob.Rooms())
			})
		})
	}
}

// A command whose answers are lost is sent again and again, and runs once: the
// member that leaves after it has run stays out.
func TestCommandThatIsSentAgainRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, joined := newHub(t, bus, nil), 0
		var b *fanout.Hub
		b = newHub(t, bus, &fanout.Options{OnJoin: func(room string, m *fanout.Member) {
			if room == "y" {
				joined++
				_ = b.Room("y").Leave(context.Background(), m) // checked below
			}
		}})
		bob := connect(t, b, "x")
		time.Sleep(5 * time.Second)
		restored := time.Now().Add(2 * time.Second)
		copies := 0
		bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if strings.Contains(f.Channel, ":r:{x}") {
				copies++
			}
			return memory.Fate{Drop: strings.Contains(f.Channel, a.ID()) && time.Now().Before(restored)}
		})
		defer bus.Intercept(nil)
		require.NoError(t, a.In("x").Join(within(t), "y"))
		synctest.Wait()
		require.Greater(t, copies, 2)
		require.Equal(t, 1, joined)
		require.Equal(t, []string{"x"}, bob.Rooms())
	})
}

// A member of a hub that died long ago holds up no command.
func TestCommandToAMemberOfADeadHubReturnsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		link := bus.NewAdapter()
		a, b := newHub(t, bus, nil), newHubOn(t, link, nil)
		bob := connect(t, b, "x")
		time.Sleep(5 * time.Second)
		link.Cut()
		time.Sleep(time.Minute)
		began := time.Now()
		require.NoError(t, a.To(bob.ID()).Close(within(t), "late"))
		require.Zero(t, time.Since(began))
		link.Heal()
	})
}

// Nor does a member of a hub that is known to be gone, on a backend that does
// not count receivers.
func TestQuestionsToMembersOfAHubThatIsGone(t *testing.T) {
	for _, counts := range []bool{true, false} {
		t.Run(fmt.Sprintf("counts=%v", counts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 3, counts, nil)
				bob := connect(t, f.hubs[2], "x")
				f.kill(2)
				time.Sleep(10 * time.Second)
				began := time.Now()
				s := f.hubs[0].To(bob.ID())
				requireCount(t, 0, s)
				require.NoError(t, s.Close(within(t), "late"))
				require.Zero(t, time.Since(began))
			})
		})
	}
}

// Members that do not answer questions leave a hub free for others.
func TestQuestionsThatNobodyAnswersLeaveAHubFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := three(t, memory.NewBus())
		connect(t, b, "mute")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		const asks = 300
		for range asks {
			go func() {
				for range a.In("mute").Ask(ctx, []byte("?")) {
					continue
				}
				done <- struct{}{}
			}()
		}
		synctest.Wait()
		began := time.Now()
		requireCount(t, 1, a.In("mute"))
		require.Zero(t, time.Since(began))
		cancel()
		for range asks {
			<-done
		}
	})
}

// Commands elsewhere do not make a Join ask Options.Admit again, and a Join
// ends with its context.
func TestJoinDespiteCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h, err := fanout.New(nil, &fanout.Options{Admit: func(_ context.Context, room string, _ *fanout.Member) error {
			if room == "x" {
				asked++
				time.Sleep(50 * time.Millisecond)
			}
			return nil
		}})
		require.NoError(t, err)
		defer h.Close(context.Background())
		m, other := connect(t, h), connect(t, h, "elsewhere")
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		commands := func(s fanout.Selection) {
			for ctx.Err() == nil {
				_ = s.Leave(ctx, "elsewhere")
				time.Sleep(30 * time.Millisecond)
			}
			stopped <- struct{}{}
		}
		go commands(h.To(other.ID()))
		require.NoError(t, h.Room("x").Join(within(t), m))
		require.Equal(t, 1, asked)
		require.NoError(t, h.Room("x").Leave(t.Context(), m))

		go commands(h.In("x"))
		short, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		require.ErrorIs(t, h.Room("x").Join(short, m), context.DeadlineExceeded)
		require.Less(t, asked, 30)
		cancel()
		<-stopped
		<-stopped
	})
}

// A member that cannot join does not keep others from joining.
func TestJoinOfASelectionGoesOnAfterAMemberThatCannot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := fanout.New(nil, &fanout.Options{Admit: func(_ context.Context, room string, m *fanout.Member) error {
			if room == "y" && strings.HasSuffix(m.ID(), "-3") {
				panic("no")
			}
			return nil
		}})
		require.NoError(t, err)
		defer h.Close(context.Background())
		for range 5 {
			connect(t, h, "x")
		}
		err = h.In("x").Join(within(t), "y")
		var partial *fanout.PartialError
		require.True(t, errors.As(err, &partial), fmt.Sprint(err))
		require.Len(t, partial.Failed, 1)
		requireCount(t, 4, h.In("y"))
	})
}
