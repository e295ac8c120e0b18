package redispubsub

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestIdentity(t *testing.T) {
	primary := func(run string) *identity { return &identity{run: run} }
	replica := func(run string) *identity { return &identity{run: run, replica: true} }
	for _, test := range []struct {
		name       string
		id, fresh  *identity
		want       error
		worthwhile bool
	}{
		{"a primary, and nothing else is known", primary("a"), nil, nil, false},
		{"the primary that the address leads to", primary("a"), primary("a"), nil, false},
		{"a replica, and nothing else is known", replica("a"), nil, errReplica, false},
		{"a replica, and the address leads to it", replica("a"), replica("a"), errReplica, false},
		{"a replica, and the address leads to a primary", replica("a"), primary("b"), errReplaced, true},
		{"a primary, and the address leads to another", primary("a"), primary("b"), errReplaced, true},
		{"a primary, and the address leads to a replica", primary("a"), replica("b"), nil, false},
		{"a replica that does not tell its run_id, and the address leads to a primary", replica(""), primary("b"), errReplica, true},
		{"primaries that do not tell their run_id", primary(""), primary(""), nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, test.id.stale(test.fresh))
			require.Equal(t, test.worthwhile, test.id.worthwhile(test.fresh))
		})
	}
}

func TestThrottle(t *testing.T) {
	var p throttle
	now := time.Now()
	require.True(t, p.may(now))
	require.False(t, p.may(now.Add(firstReplaced/2)))
	require.True(t, p.may(now.Add(firstReplaced)))
	require.False(t, p.may(now.Add(2*firstReplaced)))
	require.True(t, p.may(now.Add(3*firstReplaced)))
	require.True(t, p.may(now.Add(time.Hour)))
	require.True(t, p.may(now.Add(time.Hour+firstReplaced)), "after a long time it begins anew")
}

// Servers say who they are on the connection that subscribes, whatever the
// protocol, as far as the user's rights allow. Where they do not, everything
// else works, and the log says what does not.
func TestServersSayWhoTheyAre(t *testing.T) {
	s := server(t)
	info, err := s.Do(t.Context(), "INFO", "server").ToString()
	require.NoError(t, err)
	run := field(info, "run_id")
	require.NotEmpty(t, run)
	for _, resp2 := range []bool{false, true} {
		for rights, want := range map[string]identity{
			"+role +info": {run: run, version: version(info)},
			"-role +info": {run: run, version: version(info)},
			"+role -info": {unknown: resp2}, // RESP2 leaves nothing but INFO there
			"-role -info": {unknown: true},
		} {
			t.Run(fmt.Sprintf("%s, RESP2 %v", rights, resp2), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				rule := append([]string{"ACL", "SETUSER", "alice", "reset", "on", "nopass", "~*", "&*", "+@all"}, rights[:5], rights[6:])
				require.NoError(t, s.Do(ctx, rule...).Error())
				client := s.Client(t, func(o *rueidis.ClientOption) { o.Username, o.Password, o.AlwaysRESP2 = "alice", "any", resp2 })
				log := new(lockedBuffer)
				e, err := New(client, Config{Name: "test", ProbeInterval: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(log, nil))})
				require.NoError(t, err)
				require.NoError(t, e.Attach(silent{}))
				defer func() { require.NoError(t, e.Close(ctx)) }()
				const channel = "fanout:r:{who}"
				require.NoError(t, e.Subscribe(ctx, channel))
				ses := e.session(s.Addr())
				require.NotNil(t, ses)
				require.Equal(t, !resp2, ses.resp3)
				require.Equal(t, want, ses.id)
				n, err := e.Publish(ctx, channel, []byte("hello"))
				require.NoError(t, err)
				require.Equal(t, 1, n)
				says := func() bool { return bytes.Contains(log.bytes(), []byte("refuses ROLE and INFO")) }
				if rights == "-role -info" {
					require.Eventually(t, says, 10*time.Second, time.Millisecond)
				}
				require.Same(t, ses, e.session(s.Addr()), "the session stands")
			})
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// What an engine sends to a single server goes over one connection of the
// client, whatever the keys: the one that the inspector looks after.
func TestCommandsUseTheConnectionThatIsInspected(t *testing.T) {
	s := redistest.NewServer(t, redistest.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.Zero(t, redistest.Slot(slotZero))
	client := s.Client(t, func(o *rueidis.ClientOption) { o.PipelineMultiplex = 3 })
	e := newEngine(t, client, -1)
	require.Eventually(t, func() bool { return e.topology.pipeline(s.Addr()) != nil }, 10*time.Second, time.Millisecond)
	for n := range 100 {
		_, err := e.Publish(ctx, fmt.Sprint("fanout:r:{", n, "}"), []byte("hello"))
		require.NoError(t, err)
	}
	count := func() string {
		info, err := s.Do(ctx, "INFO", "stats").ToString()
		require.NoError(t, err)
		return field(info, "total_connections_received")
	}
	was := count()
	p := e.topology.pipeline(s.Addr())
	id, err := p.identify(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, id.run)
	for n := range 100 {
		_, err := e.Publish(ctx, fmt.Sprint("fanout:r:{", n, "}"), []byte("hello"))
		require.NoError(t, err)
	}
	require.Equal(t, was, count())
	clients, err := s.Do(ctx, "CLIENT", "LIST", "TYPE", "normal").ToString()
	require.NoError(t, err)
	require.Equal(t, 2, bytes.Count([]byte(clients), []byte("\n")), "the one that publishes, and that of the test:\n%s", clients)

	require.NoError(t, p.hangUp(ctx))
	_, err = e.Publish(ctx, "fanout:r:{0}", []byte("hello"))
	require.NoError(t, err)
	require.NotEqual(t, was, count(), "it is another connection")
}
