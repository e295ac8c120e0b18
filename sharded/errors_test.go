package sharded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/logtest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// do sends a command to a server and fails if that does.
func do(t testing.TB, s *redistest.Server, args ...string) {
	t.Helper()
	require.NoError(t, s.Do(within(t), args...).Error())
}

// infoCount reads a number of INFO.
func infoCount(t testing.TB, s *redistest.Server, section, name string) int {
	t.Helper()
	text, err := s.Do(within(t), "INFO", section).ToString()
	require.NoError(t, err)
	m := regexp.MustCompile(regexp.QuoteMeta(name) + `:(?:count=)?(\d+)`).FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}

// Errors that waiting may cure are tried again until the context ends.
func TestErrorsThatPass(t *testing.T) {
	t.Parallel()
	dropClients := func(t *testing.T, s *redistest.Server) {
		do(t, s, "CLIENT", "KILL", "TYPE", "pubsub")
		do(t, s, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	}
	for _, test := range []struct {
		name          string
		begin, end    func(t *testing.T, s *redistest.Server)
		section, stat string // of INFO: counts how often the server has said so
		plain         bool   // it concerns rooms without a history
	}{
		{
			"no memory",
			func(t *testing.T, s *redistest.Server) { do(t, s, "CONFIG", "SET", "maxmemory", "1") },
			func(t *testing.T, s *redistest.Server) { do(t, s, "CONFIG", "SET", "maxmemory", "0") },
			"errorstats", "errorstat_OOM", false,
		},
		{
			"no replicas",
			func(t *testing.T, s *redistest.Server) { do(t, s, "CONFIG", "SET", "min-replicas-to-write", "1") },
			func(t *testing.T, s *redistest.Server) { do(t, s, "CONFIG", "SET", "min-replicas-to-write", "0") },
			"errorstats", "errorstat_NOREPLICAS", false,
		},
		{
			"disk full",
			func(t *testing.T, s *redistest.Server) {
				do(t, s, "CONFIG", "SET", "stop-writes-on-bgsave-error", "yes")
				do(t, s, "BGSAVE")
				require.Eventually(t, func() bool {
					text, err := s.Do(within(t), "INFO", "persistence").ToString()
					return err == nil && bytes.Contains([]byte(text), []byte("rdb_last_bgsave_status:err"))
				}, 10*time.Second, 20*time.Millisecond)
			},
			func(t *testing.T, s *redistest.Server) {
				do(t, s, "CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
			},
			"errorstats", "errorstat_MISCONF", false,
		},
		{
			"a password that is changed",
			func(t *testing.T, s *redistest.Server) {
				do(t, s, "ACL", "SETUSER", "chat", "resetpass", ">other")
				dropClients(t, s)
			},
			func(t *testing.T, s *redistest.Server) { do(t, s, "ACL", "SETUSER", "chat", "resetpass", ">secret") },
			"errorstats", "errorstat_WRONGPASS", true,
		},
		{
			"too many clients",
			func(t *testing.T, s *redistest.Server) {
				do(t, s, "CONFIG", "SET", "maxclients", "1")
				dropClients(t, s)
			},
			func(t *testing.T, s *redistest.Server) { do(t, s, "CONFIG", "SET", "maxclients", "10000") },
			"stats", "rejected_connections", true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			onServers(t, []string{"--dir", "/proc", "--save", "3600 1000000", "--stop-writes-on-bgsave-error", "no"}, func(t *testing.T, s *redistest.Server) {
				do(t, s, "ACL", "SETUSER", "chat", "on", ">secret", "+@all", "~*", "&*")
				as := func(o *rueidis.ClientOption) { o.Username, o.Password = "chat", "secret" }
				h := keeping(t, s.Client(t, as), 100)
				plain := keeping(t, s.Client(t, as), 0)
				m := member(t, h)
				require.NoError(t, h.Room("x").Join(within(t), m))
				say(t, h.Room("x"), 1, 5)
				say(t, plain.Room("y"), 1, 1)

				before := infoCount(t, s, test.section, test.stat)
				test.begin(t, s)
				var calls sync.WaitGroup
				calls.Go(func() {
					if err := h.Room("x").Publish(within(t), []byte("6")); err != nil {
						t.Error("publish into a history: ", err)
					}
				})
				calls.Go(func() {
					list, err := h.Room("x").History(within(t), fanout.Position{}, 0)
					if err != nil || len(list) < 5 {
						t.Error("history: ", len(list), err)
					}
				})
				if test.plain {
					calls.Go(func() {
						if err := plain.Room("y").Publish(within(t), []byte("2")); err != nil {
							t.Error("publish: ", err)
						}
					})
				}
				require.Eventually(t, func() bool {
					return infoCount(t, s, test.section, test.stat) >= before+4
				}, 20*time.Second, 10*time.Millisecond, "it is tried again")
				test.end(t, s)
				calls.Wait()
				if t.Failed() {
					t.FailNow()
				}
				received := 0
				for received < 6 { // with gaps where the link was broken
					if msg, err := m.Receive(within(t)); err == nil {
						received++
						require.Equal(t, fmt.Sprint(received), string(msg.Data))
					} else {
						require.NotErrorIs(t, err, fanout.ErrClosed)
						require.NotErrorIs(t, err, context.DeadlineExceeded)
					}
				}
			})
		})
	}
}

// The error at the end of the context says what was in the way.
func TestDeadlineErrorsSayWhy(t *testing.T) {
	t.Parallel()
	s := redistest.NewServer(t, redistest.Options{})
	h := keeping(t, s.Client(t), 100)
	say(t, h.Room("x"), 1, 1)
	do(t, s, "CONFIG", "SET", "maxmemory", "1")
	err := publishUntilDeadline(t, h.Room("x"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, fanout.ErrUnsent)
	require.NotErrorIs(t, err, fanout.ErrRefused)
	require.ErrorContains(t, err, "no memory for the history")
	require.ErrorContains(t, h.Health(within(t)), "no memory for the history")
	do(t, s, "CONFIG", "SET", "maxmemory", "0")
	say(t, h.Room("x"), 2, 2)
	require.NoError(t, h.Health(within(t)))
}

// Errors say in words what a server cannot do. Neither logs nor errors contain
// keys or the bytes of frames.
func TestServersWithoutCommands(t *testing.T) {
	t.Parallel()
	s := redistest.NewServer(t, redistest.Options{Args: []string{"--rename-command", "FCALL", "", "--rename-command", "EVALSHA", ""}})
	var lines logtest.Text
	logger := lines.Logger()
	a, err := sharded.New(s.Client(t), &sharded.Options{Logger: logger})
	require.NoError(t, err)
	h, err := fanout.New(a, &fanout.Options{Logger: logger, Room: func(string) fanout.RoomOptions { return fanout.RoomOptions{Retain: fanout.Retention{Messages: 10}} }})
	require.NoError(t, err)
	defer h.Close(within(t))
	require.NoError(t, h.Health(within(t)))
	err = h.Room("hidden").Publish(within(t), []byte("confidential"))
	require.ErrorIs(t, err, fanout.ErrRefused)
	require.ErrorIs(t, err, fanout.ErrUnsent)
	joined := h.Room("hidden").Join(within(t), member(t, h))
	require.ErrorIs(t, joined, fanout.ErrRefused)
	health := h.Health(within(t))
	require.Error(t, health)
	for _, text := range []string{err.Error(), joined.Error(), health.Error()} {
		require.Contains(t, text, "a history needs Redis 7.0 or later, or Valkey")
		require.NotContains(t, text, "confidential")
		require.NotContains(t, text, "fanout:h:")
		require.NotContains(t, text, "args beginning")
	}
	require.NotContains(t, lines.String(), "confidential")
	require.NotContains(t, lines.String(), "fanout:h:")
	require.NoError(t, h.Everyone().Publish(within(t), []byte("nobody else notices")))

	old := redistest.NewServer(t, redistest.Options{Args: []string{"--rename-command", "SSUBSCRIBE", ""}})
	a, err = sharded.New(old.Client(t), &sharded.Options{Logger: logger})
	require.NoError(t, err)
	err = errors.Join(a.Attach(ignore{}), a.Subscribe(within(t), "fanout:r:{x}"))
	require.ErrorIs(t, err, fanout.ErrRefused)
	require.ErrorContains(t, err, "needs Redis 7.0 or later, or Valkey")
	require.NotContains(t, err.Error(), "args beginning")
	require.NoError(t, a.Close(within(t)))
}

// ignore is a receiver.
type ignore struct{}

func (ignore) Receive(string, []byte) {}
func (ignore) Interrupted(string)     {}
func (ignore) Restored(string)        {}

// A client whose dedicated connections are all in use keeps a hub from joining,
// which says so, and not from closing.
func TestPoolThatIsUsedUp(t *testing.T) {
	t.Parallel()
	s := server(t)
	client := s.Client(t, func(o *rueidis.ClientOption) { o.BlockingPoolSize = 1 })
	first, err := newAdapter(client)
	require.NoError(t, err)
	require.NoError(t, first.Attach(ignore{}))
	require.NoError(t, first.Subscribe(within(t), "fanout:r:{x}"))

	second, err := newAdapter(client)
	require.NoError(t, err)
	require.NoError(t, second.Attach(ignore{}))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	err = second.Subscribe(ctx, "fanout:r:{x}")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "pool of dedicated connections is used up")
	go second.Subscribe(t.Context(), "fanout:r:{y}")
	require.Eventually(t, func() bool {
		err := second.(adapter.HealthChecker).Health()
		return err != nil && regexp.MustCompile("BlockingPoolSize").MatchString(err.Error())
	}, 10*time.Second, 20*time.Millisecond)
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.NoError(t, second.Close(ctx), "it does not wait for the pool")

	third, err := newAdapter(client)
	require.NoError(t, err)
	require.NoError(t, third.Attach(ignore{}))
	joined := make(chan error)
	go func() { joined <- third.Subscribe(within(t), "fanout:r:{z}") }()
	require.NoError(t, first.Close(within(t)))
	require.NoError(t, <-joined, "a connection that is given back is used")
	require.NoError(t, third.Close(within(t)))
}
