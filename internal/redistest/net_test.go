package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requireSilent says that nothing comes, not even an end.
func requireSilent(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Time{}))
}

func requireReads(t *testing.T, c net.Conn, want string) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
	got := make([]byte, len(want))
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
	require.NoError(t, c.SetReadDeadline(time.Time{}))
}

// pair is a connection through n, and the server's end of it.
func pair(t *testing.T, n *Net) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	dial := n.wrap(func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", l.Addr().String())
	})
	client, err = dial(t.Context(), "node", new(net.Dialer), nil)
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { n.HealAll(); client.Close(); server.Close() })
	return client, server
}

func TestNetCutHoldsBytesBackBothWays(t *testing.T) {
	var n Net
	client, server := pair(t, &n)
	n.Cut("node")
	_, err := client.Write([]byte("ping"))
	require.NoError(t, err, "the system would take it")
	_, err = server.Write([]byte("pong"))
	require.NoError(t, err)
	requireSilent(t, server)
	requireSilent(t, client)
	n.Heal("node")
	requireReads(t, server, "ping")
	requireReads(t, client, "pong")
}

func TestNetCutReachesReadsThatWait(t *testing.T) {
	var n Net
	client, server := pair(t, &n)
	read := make(chan string, 1)
	go func() {
		b := make([]byte, 16)
		k, err := client.Read(b)
		read <- string(b[:k]) + errText(err)
	}()
	n.Cut("node") // before or after the read has begun: it must see nothing either way
	_, err := server.Write([]byte("late"))
	require.NoError(t, err)
	select {
	case got := <-read:
		t.Fatalf("read %q through the cut", got)
	case <-time.After(200 * time.Millisecond):
	}
	n.Heal("node")
	require.Equal(t, "late", <-read)
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestNetCutBlocksWritesInTheEnd(t *testing.T) {
	var n Net
	client, _ := pair(t, &n)
	n.Cut("node")
	require.NoError(t, client.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	var err error
	for err == nil {
		_, err = client.Write(make([]byte, 10_000))
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestNetCutHidesTheClose(t *testing.T) {
	var n Net
	client, server := pair(t, &n)
	n.Cut("node")
	require.NoError(t, client.Close())
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	requireSilent(t, server)
	n.Heal("node")
	_, err = server.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestNetCloseEndsWhatWaits(t *testing.T) {
	var n Net
	client, _ := pair(t, &n)
	n.Cut("node")
	ended := make(chan error)
	go func() {
		_, err := client.Read(make([]byte, 1))
		ended <- err
	}()
	require.NoError(t, client.Close())
	require.ErrorIs(t, <-ended, net.ErrClosed)
}

func TestNetReset(t *testing.T) {
	var n Net
	client, server := pair(t, &n)
	n.Reset("node")
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = client.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = server.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestNetIsOneClientsAlone(t *testing.T) {
	s := single(t)
	var n Net
	theirs, others := s.Client(t, n.Option()), s.Client(t)
	t.Cleanup(n.HealAll)
	require.NoError(t, set(t.Context(), theirs, "k", "v"))

	n.Cut(s.Addr())
	require.ErrorIs(t, set(shortly(t), theirs, "k", "w"), context.DeadlineExceeded)
	require.NoError(t, set(t.Context(), others, "k", "x"))
	n.HealAll()
	eventually(t, "the client is back", func(ctx context.Context) error { return set(ctx, theirs, "k", "y") })

	n.ResetAll()
	require.Error(t, set(shortly(t), theirs, "k", "w"))
	require.NoError(t, set(t.Context(), others, "k", "x"))
	n.HealAll()
	eventually(t, "the client is back", func(ctx context.Context) error { return set(ctx, theirs, "k", "y") })
}

func TestNetDials(t *testing.T) {
	s := single(t)
	var n Net
	o := s.ClientOption()
	n.Option()(&o)
	dial := func(ctx context.Context) error {
		c, err := o.DialCtxFn(ctx, s.Addr(), &o.Dialer, nil)
		if err == nil {
			err = c.Close()
		}
		return err
	}
	n.Reset(s.Addr())
	require.ErrorIs(t, dial(t.Context()), syscall.ECONNREFUSED)
	n.CutAll()
	require.ErrorIs(t, dial(shortly(t)), context.DeadlineExceeded)

	healed := make(chan error)
	go func() { healed <- dial(t.Context()) }()
	n.HealAll()
	require.NoError(t, <-healed, "a dial that hung goes through")
	require.Error(t, errors.Join(dial(canceled(t))))
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
