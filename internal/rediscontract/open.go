package rediscontract

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/logtest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// OpenLogged makes the adapter under test, with a client of its own, and a log.
type OpenLogged func(rueidis.ClientOption, *slog.Logger) (adapter.Adapter, error)

// An Opened is a hub on an adapter with a client of its own, and what it logs.
type Opened struct {
	t   testing.TB
	Hub *fanout.Hub
	log logtest.Text
}

// Open returns a hub. Its rooms that begin with "kept" have a history.
func Open(t testing.TB, open OpenLogged, o rueidis.ClientOption) *Opened {
	t.Helper()
	h := &Opened{t: t}
	a, err := open(o, h.log.Logger())
	require.NoError(t, err)
	h.Hub, err = fanout.New(a, &fanout.Options{Room: func(name string) (o fanout.RoomOptions) {
		if strings.HasPrefix(name, "kept") {
			o.Retain = fanout.Retention{Messages: 10}
		}
		return o
	}})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := h.Hub.Close(h.within(time.Minute)); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *Opened) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *Opened) member() *fanout.Member {
	m, err := h.Hub.Connect(nil)
	require.NoError(h.t, err)
	return m
}

// TellsWhy checks that a hub that cannot connect says why everywhere.
func (h *Opened) TellsWhy(why string) {
	h.t.Helper()
	tried := func() bool { return strings.Contains(h.log.String(), why) }
	require.Eventually(h.t, tried, time.Minute, 10*time.Millisecond, "it has tried")
	var calls sync.WaitGroup
	var published, joined, healthy error
	calls.Go(func() { published = h.Hub.Room("x").Publish(h.within(2*time.Second), []byte("lost")) })
	m := h.member()
	calls.Go(func() { joined = h.Hub.Room("x").Join(h.within(2*time.Second), m) })
	calls.Go(func() { healthy = h.Hub.Health(h.within(2 * time.Second)) })
	calls.Wait()
	require.ErrorIs(h.t, published, context.DeadlineExceeded)
	require.ErrorIs(h.t, published, fanout.ErrUnsent)
	require.NotErrorIs(h.t, published, fanout.ErrRefused)
	require.ErrorContains(h.t, published, why)
	require.ErrorIs(h.t, joined, context.DeadlineExceeded)
	require.ErrorContains(h.t, healthy, why)
	require.Equal(h.t, 1, strings.Count(h.log.String(), "cannot connect"), h.log.String())
}

// Recovers checks that a hub works by itself once it can.
func (h *Opened) Recovers() {
	h.t.Helper()
	h.Speaks("x")
	require.Eventually(h.t, func() bool { return h.Hub.Health(h.within(time.Second)) == nil }, 10*time.Second, 20*time.Millisecond)
}

// Speaks checks that a message reaches a member of a room.
func (h *Opened) Speaks(room string) {
	h.t.Helper()
	m := h.member()
	require.NoError(h.t, h.Hub.Room(room).Join(h.within(time.Minute), m))
	require.NoError(h.t, h.Hub.Room(room).Publish(h.within(time.Minute), []byte("hello")))
	msg, err := m.Receive(h.within(time.Minute))
	require.NoError(h.t, err)
	require.Equal(h.t, "hello", string(msg.Data))
}

func (h *Opened) healthy() {
	h.t.Helper()
	require.NoError(h.t, h.Hub.Health(h.within(10*time.Second)))
}

// refuses checks that a room is refused, with an error that says one of some
// texts, in any case, and nothing of what was sent.
func (h *Opened) refuses(room string, says ...string) {
	h.t.Helper()
	clearly := func(what string, err error) {
		h.t.Helper()
		require.Error(h.t, err, what)
		text := strings.ToLower(err.Error())
		require.True(h.t, slices.ContainsFunc(says, func(s string) bool { return strings.Contains(text, strings.ToLower(s)) }), "%s: %v", what, err)
		require.NotContains(h.t, text, "args beginning", what)
	}
	for name, err := range map[string]error{
		"Join":    h.Hub.Room(room).Join(h.within(10*time.Second), h.member()),
		"Publish": h.Hub.Room(room).Publish(h.within(10*time.Second), []byte("lost")),
	} {
		require.ErrorIs(h.t, err, fanout.ErrRefused, name)
		clearly(name, err)
	}
	clearly("Health", h.Hub.Health(h.within(10*time.Second)))
}

// RunOpen tests that an opened adapter says what keeps it from connecting, a
// reason each, and connects when it can.
func RunOpen(t *testing.T, open OpenLogged) {
	for _, o := range openings {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			o.test(t, open)
		})
	}
}

var openings = []struct {
	name string
	test func(t *testing.T, open OpenLogged)
}{
	{"a server that is down", func(t *testing.T, open OpenLogged) {
		s := redistest.NewServer(t, redistest.Options{})
		var net redistest.Net
		net.ResetAll()
		o := s.ClientOption()
		net.Option()(&o)
		h := Open(t, open, o)
		h.TellsWhy("nothing listens at this address")
		net.HealAll()
		h.Recovers()
		require.Contains(t, h.log.String(), "connected")
	}},
	{"an address that nobody knows", func(t *testing.T, open OpenLogged) {
		o := rueidis.ClientOption{InitAddress: []string{"redis.invalid:6379"}}
		o.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "redis.invalid", IsNotFound: true}
		}
		h := Open(t, open, o)
		h.TellsWhy("the address cannot be resolved")
	}},
	{"RESP2 is enough", func(t *testing.T, open OpenLogged) {
		s := redistest.NewServer(t, redistest.Options{})
		o := s.ClientOption()
		o.AlwaysRESP2 = true
		h := Open(t, open, o)
		h.Recovers()
		h.Speaks("kept")
	}},
	{"a server that is silent", func(t *testing.T, open OpenLogged) {
		s := redistest.NewServer(t, redistest.Options{})
		var net redistest.Net
		net.CutAll()
		o := s.ClientOption()
		o.Dialer.Timeout = time.Second
		net.Option()(&o)
		h := Open(t, open, o)
		h.TellsWhy("connecting to")
		net.HealAll()
		h.Recovers()
	}},
	{"a password is wanted", func(t *testing.T, open OpenLogged) {
		s := redistest.NewServer(t, redistest.Options{})
		redistest.Must(t, s.Do(t.Context(), "ACL", "SETUSER", "default", "resetpass", ">secret").Error())
		for _, password := range []string{"", "wrong"} {
			o := s.ClientOption()
			o.Password = password
			h := Open(t, open, o)
			h.TellsWhy("password")
		}
		o := s.ClientOption()
		o.Password = "secret"
		h := Open(t, open, o)
		h.Recovers()
	}},
	{"a password that is set later", func(t *testing.T, open OpenLogged) {
		s := redistest.NewServer(t, redistest.Options{})
		redistest.Must(t, s.Do(t.Context(), "ACL", "SETUSER", "chat", "on", ">other", "+@all", "~*", "&*").Error())
		o := s.ClientOption()
		o.Username, o.Password = "chat", "secret"
		h := Open(t, open, o)
		h.TellsWhy("does not accept the user or password")
		redistest.Must(t, s.Do(t.Context(), "ACL", "SETUSER", "chat", ">secret").Error())
		h.Recovers()
	}},
	{"a cluster without slots", func(t *testing.T, open OpenLogged) {
		s := redistest.NewServer(t, redistest.Options{Args: []string{"--cluster-enabled", "yes"}})
		o := s.ClientOption()
		o.ForceSingleClient = false
		h := Open(t, open, o)
		h.TellsWhy("the cluster has no slots")
		redistest.Must(t, s.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", "0", "16383").Error())
		h.Recovers()
	}},
	{"no cluster", func(t *testing.T, open OpenLogged) {
		s := redistest.NewServer(t, redistest.Options{})
		o := s.ClientOption()
		o.ForceSingleClient = false
		o.InitAddress = []string{o.InitAddress[0], o.InitAddress[0]}
		h := Open(t, open, o)
		h.TellsWhy("the server is not a cluster: give the client one address")
	}},
	{"TLS to a server without", func(t *testing.T, open OpenLogged) {
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
		h := Open(t, open, o)
		h.TellsWhy("speak TLS")
	}},
	{"no TLS to a server that wants it", func(t *testing.T, open OpenLogged) {
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
		h := Open(t, open, rueidis.ClientOption{InitAddress: []string{l.Addr().String()}})
		h.TellsWhy("expect")
	}},
}

// RunOldServer tests that a server that is too old is said to be.
func RunOldServer(t *testing.T, isSharded bool, open OpenLogged) {
	t.Parallel()
	const needs = " needs Redis 7.0 or later, or Valkey"
	h := Open(t, open, newOldServer(t).clientOption())
	if isSharded {
		h.refuses("x", "sharded Pub/Sub"+needs)
		return
	}
	h.Speaks("x")
	h.healthy()
	h.refuses("kept", "a history"+needs)
	h.Speaks("y")
}
