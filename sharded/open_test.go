package sharded_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestOpenRefusesOptionsThatCannotWork(t *testing.T) {
	for name, o := range map[string]rueidis.ClientOption{
		"no address":      {},
		"no port":         {InitAddress: []string{"10.0.0.1"}},
		"a multiplex":     {InitAddress: []string{"10.0.0.1:6379"}, PipelineMultiplex: 100},
		"an interval":     {InitAddress: []string{"10.0.0.1:6379"}, ClusterOption: rueidis.ClusterOption{ShardsRefreshInterval: -1}},
		"of a sentinel":   {InitAddress: []string{"10.0.0.1:6379"}, Sentinel: rueidis.SentinelOption{MasterSet: "x", TopologyRefreshInterval: -1}},
		"a contradiction": {InitAddress: []string{"10.0.0.1:6379"}, ReplicaOnly: true, SendToReplicas: func(rueidis.Completed) bool { return true }},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sharded.Open(o, nil)
			require.ErrorIs(t, err, fanout.ErrInvalidOption)
		})
	}
	_, err := sharded.Open(rueidis.ClientOption{InitAddress: []string{"10.0.0.1:6379"}}, &sharded.Options{ProbeTimeout: -1})
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
}

// opened returns a hub on an opened adapter, and what it logs.
func opened(t testing.TB, o rueidis.ClientOption) (*fanout.Hub, *log) {
	t.Helper()
	lines := new(log)
	a, err := sharded.Open(o, &sharded.Options{Logger: slog.New(slog.NewTextHandler(lines, nil))})
	require.NoError(t, err)
	h, err := fanout.New(a, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := h.Close(within(t)); err != nil {
			t.Error(err)
		}
	})
	return h, lines
}

// tellsWhy checks that a hub that cannot connect says so everywhere.
func tellsWhy(t *testing.T, h *fanout.Hub, lines *log, why string) {
	t.Helper()
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	tried := func() bool { return strings.Contains(lines.String(), why) }
	require.Eventually(t, tried, time.Minute, 10*time.Millisecond, "it has tried")
	err := h.Room("x").Publish(soon(), []byte("lost"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, fanout.ErrUnsent)
	require.NotErrorIs(t, err, fanout.ErrRefused)
	require.ErrorContains(t, err, why)
	require.ErrorIs(t, h.Room("x").Join(soon(), member(t, h)), context.DeadlineExceeded)
	require.ErrorContains(t, h.Health(soon()), why)
	require.Equal(t, 1, strings.Count(lines.String(), "cannot connect"), lines.String())
}

// recovers checks that a hub works by itself once it can.
func recovers(t *testing.T, h *fanout.Hub) {
	t.Helper()
	m := member(t, h)
	require.NoError(t, h.Room("x").Join(within(t), m))
	require.NoError(t, h.Room("x").Publish(within(t), []byte("hello")))
	msg, err := m.Receive(within(t))
	require.NoError(t, err)
	require.Equal(t, "hello", string(msg.Data))
	require.Eventually(t, func() bool { return h.Health(within(t)) == nil }, 10*time.Second, 20*time.Millisecond)
}

func TestOpenConnectsWhenItCan(t *testing.T) {
	t.Parallel()
	t.Run("a server that is down", func(t *testing.T) {
		t.Parallel()
		s := redistest.NewServer(t, redistest.Options{})
		var net redistest.Net
		net.ResetAll()
		o := s.ClientOption()
		net.Option()(&o)
		h, lines := opened(t, o)
		tellsWhy(t, h, lines, "nothing listens at this address")
		net.HealAll()
		recovers(t, h)
		require.Contains(t, lines.String(), "connected")
	})
	t.Run("a server that is silent", func(t *testing.T) {
		t.Parallel()
		s := redistest.NewServer(t, redistest.Options{})
		var net redistest.Net
		net.CutAll()
		o := s.ClientOption()
		o.Dialer.Timeout = time.Second
		net.Option()(&o)
		h, lines := opened(t, o)
		tellsWhy(t, h, lines, "connecting to")
		net.HealAll()
		recovers(t, h)
	})
	t.Run("a password is wanted", func(t *testing.T) {
		t.Parallel()
		s := redistest.NewServer(t, redistest.Options{})
		do(t, s, "ACL", "SETUSER", "default", "resetpass", ">secret")
		for _, password := range []string{"", "wrong"} {
			o := s.ClientOption()
			o.Password = password
			h, lines := opened(t, o)
			tellsWhy(t, h, lines, "password")
		}
		o := s.ClientOption()
		o.Password = "secret"
		h, _ := opened(t, o)
		recovers(t, h)
	})
	t.Run("a password that is set later", func(t *testing.T) {
		t.Parallel()
		s := redistest.NewServer(t, redistest.Options{})
		do(t, s, "ACL", "SETUSER", "chat", "on", ">other", "+@all", "~*", "&*")
		o := s.ClientOption()
		o.Username, o.Password = "chat", "secret"
		h, lines := opened(t, o)
		tellsWhy(t, h, lines, "does not take the user or password")
		do(t, s, "ACL", "SETUSER", "chat", ">secret")
		recovers(t, h)
	})
	t.Run("a cluster without slots", func(t *testing.T) {
		t.Parallel()
		s := redistest.NewServer(t, redistest.Options{Args: []string{"--cluster-enabled", "yes"}})
		o := s.ClientOption()
		o.ForceSingleClient = false
		h, lines := opened(t, o)
		tellsWhy(t, h, lines, "the cluster has no slots")
		do(t, s, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
		recovers(t, h)
	})
	t.Run("no cluster", func(t *testing.T) {
		t.Parallel()
		s := redistest.NewServer(t, redistest.Options{})
		o := s.ClientOption()
		o.ForceSingleClient = false
		o.InitAddress = []string{o.InitAddress[0], o.InitAddress[0]}
		h, lines := opened(t, o)
		tellsWhy(t, h, lines, "the server is no cluster: give the client one address")
	})
	t.Run("TLS to a server without", func(t *testing.T) {
		t.Parallel()
		s := redistest.NewServer(t, redistest.Options{})
		o := s.ClientOption()
		o.TLSConfig = new(tls.Config)
		o.Dialer.Timeout = time.Second // Redis waits for the end of what it takes for a line
		plain := o.DialCtxFn
		o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			conn, err := plain(ctx, addr, d, nil)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, d.Timeout) // as tls.Dialer does
			defer cancel()
			c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			if err := c.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, err
			}
			return c, nil
		}
		h, lines := opened(t, o)
		tellsWhy(t, h, lines, "speak TLS")
	})
	t.Run("no TLS to a server that wants it", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		go func() { // ends with l
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				tls.Server(conn, &tls.Config{}).Handshake()
				conn.Close()
			}
		}()
		h, lines := opened(t, rueidis.ClientOption{InitAddress: []string{l.Addr().String()}})
		tellsWhy(t, h, lines, "expect")
	})
}

// Close does not wait for a server that is not there, whatever the client waits
// for.
func TestOpenCloses(t *testing.T) {
	s := server(t)
	var net redistest.Net
	net.CutAll()
	defer net.HealAll()
	o := s.ClientOption()
	net.Option()(&o)
	a, err := sharded.Open(o, nil)
	require.NoError(t, err)
	require.NoError(t, a.Attach(ignore{}))
	require.ErrorIs(t, closeWith(t, a, func() error { return a.Subscribe(t.Context(), "fanout:r:{x}") }), fanout.ErrClosed)

	never, err := sharded.Open(o, nil)
	require.NoError(t, err)
	require.NoError(t, never.Close(within(t)))
	require.ErrorIs(t, never.Attach(ignore{}), fanout.ErrClosed)
}

// closeWith closes an adapter while a call waits, and returns that one's error.
func closeWith(t *testing.T, a *sharded.Adapter, call func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.NoError(t, a.Close(ctx))
	return <-ended
}
