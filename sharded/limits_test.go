package sharded_test

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// A message that is longer than the server's output buffer for subscribers is
// refused before it interrupts everybody, and a shorter one arrives.
func TestMessagesAboveTheOutputLimit(t *testing.T) {
	t.Parallel()
	hub := func(t *testing.T, s *redistest.Server, messages int, as ...func(*rueidis.ClientOption)) *fanout.Hub {
		// A busy machine may take seconds for such messages, in which the
		// server does not answer.
		a, err := sharded.New(s.Client(t, as...), &sharded.Options{ProbeTimeout: time.Minute})
		require.NoError(t, err)
		o := &fanout.Options{MaxMessage: 64 << 20}
		if messages > 0 {
			o.Room = func(string) fanout.RoomOptions {
				return fanout.RoomOptions{Retain: fanout.Retention{Messages: messages}}
			}
		}
		h, err := fanout.New(a, o)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, h.Close(within(t))) })
		return h
	}
	refused := func(t *testing.T, h *fanout.Hub, length int) {
		t.Helper()
		err := h.Room("x").Publish(within(t), make([]byte, length))
		require.ErrorIs(t, err, fanout.ErrRefused)
		require.ErrorIs(t, err, fanout.ErrUnsent)
		require.ErrorContains(t, err, "client-output-buffer-limit")
		told := make(chan error, 1)
		require.NoError(t, h.Room("x").PublishAsync(within(t), make([]byte, length), func(err error) { told <- err }))
		require.ErrorIs(t, <-told, fanout.ErrRefused)
	}
	arrives := func(t *testing.T, h *fanout.Hub, m *fanout.Member, length int) {
		t.Helper()
		require.NoError(t, h.Room("x").Publish(within(t), make([]byte, length)))
		msg, err := m.Receive(within(t))
		require.NoError(t, err)
		require.Len(t, msg.Data, length)
	}
	for _, test := range []struct {
		name           string
		args           []string
		fits, too      int
		messages       int
		raised, hidden bool
	}{
		{name: "by default", fits: 27 << 20, too: 40 << 20, raised: true},
		{name: "by default, with a history", fits: 27 << 20, too: 40 << 20, messages: 2},
		{name: "of a server that was configured", args: []string{"--client-output-buffer-limit", "pubsub 4mb 0 0"}, fits: 3 << 20, too: 5 << 20, raised: true},
		{name: "of a server that does not tell", fits: 27 << 20, too: 40 << 20, hidden: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			onServers(t, test.args, func(t *testing.T, s *redistest.Server) {
				do(t, s, "ACL", "SETUSER", "chat", "on", ">secret", "+@all", "-config", "~*", "&*")
				as := func(o *rueidis.ClientOption) {
					if test.hidden {
						o.Username, o.Password = "chat", "secret"
					}
				}
				h, other := hub(t, s, test.messages, as), hub(t, s, test.messages, as)
				m := member(t, other)
				require.NoError(t, other.Room("x").Join(within(t), m))
				refused(t, h, test.too)
				arrives(t, h, m, test.fits)
				require.Zero(t, h.Stats().Interruptions)
				require.Zero(t, other.Stats().Interruptions)
				if test.raised {
					do(t, s, "CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
					require.Eventually(t, func() bool {
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
						defer cancel()
						return h.Room("x").Publish(ctx, make([]byte, test.too)) == nil
					}, 30*time.Second, 200*time.Millisecond)
					msg, err := m.Receive(within(t))
					require.NoError(t, err)
					require.Len(t, msg.Data, test.too)
				}
			})
		})
	}
}
