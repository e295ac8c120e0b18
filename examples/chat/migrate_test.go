package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/internal/deploytest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
)

// startPlainNATS starts a server with JetStream that asks for nothing, and
// returns its address.
func startPlainNATS(t *testing.T) string {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
	})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	require.True(t, s.ReadyForConnections(10*time.Second))
	return s.Addr().String()
}

// Two chats that go from Redis to NATS are one, and hear one that has Redis
// alone.
func TestChatsThatMigrate(t *testing.T) {
	t.Setenv(passwordVariable, "secret")
	c := newCredentials(t)
	args := append(c.flags(), "-adapter", "redis", "-redis", startRedis(t, c), "-user", "ann", "-history")
	old := runChat(t, args...).dial("room", "old")
	args = append(args, "-migrate-to", "nats", "-migrate-servers", startNATS(t, c, true), "-migration", "to-nats")
	a, b := runChat(t, args...).dial("room", "a"), runChat(t, args...).dial("room", "b")
	for _, speaker := range []*client{old, a, b} {
		speaker.say("hello")
		for _, page := range []*client{old, a, b} {
			require.Equal(t, "hello", page.next()["text"])
		}
	}
	refused := append(c.flags(), "-addr", "127.0.0.1:0", "-adapter", "nats", "-nats", startNATS(t, c, true), "-user", "ann",
		"-migrate-to", "redis", "-migrate-servers", "127.0.0.1:1", "-migration", "back")
	var stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), refused, &stderr))
	require.Contains(t, stderr.String(), "chat: no Redis at 127.0.0.1:1")
}

// A chat of the first deploy whose hubs have flipped is one with a chat that
// has NATS alone.
func TestChatThatHasMigrated(t *testing.T) {
	s, there := redistest.NewServer(t, redistest.Options{}), startPlainNATS(t)
	addr, err := s.HostAddr(t.Context())
	require.NoError(t, err)
	noteFlip(t, there, "to-nats")
	a := runChat(t, "-adapter", "redis", "-redis", addr, "-migrate-to", "nats", "-migrate-servers", there, "-migration", "to-nats").dial("room", "a")
	b := runChat(t, "-adapter", "nats", "-nats", there).dial("room", "b")
	for _, speaker := range []*client{a, b} {
		speaker.say("hello")
		for _, page := range []*client{a, b} {
			require.Equal(t, "hello", page.next()["text"])
		}
	}
}

// noteFlip notes at NATS that the hubs of a migration have flipped.
func noteFlip(t *testing.T, addr, migration string) {
	a, err := nats.New("nats://"+addr, nil)
	require.NoError(t, err)
	defer a.Close(context.Background())
	require.NoError(t, a.Attach(nobody{}))
	require.Eventually(t, func() bool {
		_, _, err := a.Append(t.Context(), "fanout:m:{"+migration+"}", adapter.Record{
			Frame: []byte("migrate1 flipped"), Messages: 1, Time: time.Now(), Publisher: "migrate", Stream: 1, Seq: 1,
			Keep: adapter.Retention{Messages: 10, Age: time.Hour},
		})
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
}

type nobody struct{}

func (nobody) Receive(string, []byte) {}
func (nobody) Interrupted(string)     {}
func (nobody) Restored(string)        {}

// Each backend of a migration reads at the nodes that its own flag says.
func TestReadFrom(t *testing.T) {
	c, err := parseFlags(strings.Fields("-adapter sharded -redis a:1 -read-from replicas "+
		"-migrate-to sharded -migrate-servers b:1 -migrate-read-from all -migration x"), io.Discard)
	require.NoError(t, err)
	require.Equal(t, sharded.Replicas, shardedOptions(c, nil).ReadFrom)
	require.Equal(t, sharded.AllNodes, shardedOptions(c.there(), nil).ReadFrom)
}

// Hubs that are restarted one after the other change from Redis to NATS. It is
// tested here because this module has both.
func TestMigrationFromRedisToNATS(t *testing.T) {
	s, addr := redistest.NewServer(t, redistest.Options{}), startPlainNATS(t)
	d := &deploytest.Deploy{
		T: t, Unordered: true,
		From: func() fanout.Adapter {
			a, err := redis.New(s.Client(t), nil)
			require.NoError(t, err)
			return a
		},
		To: func() fanout.Adapter {
			a, err := nats.New("nats://"+addr, nil)
			require.NoError(t, err)
			return a
		},
		Options: migrate.Options{Settle: 2 * time.Second, Logger: slog.New(slog.DiscardHandler)},
		Pause:   func() time.Duration { return time.Duration(1+rand.N(5)) * time.Millisecond },
	}
	began := time.Now()
	d.Run()
	t.Logf("the deploy took %v", time.Since(began).Round(10*time.Millisecond))
}
