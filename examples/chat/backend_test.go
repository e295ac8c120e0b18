package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout/internal/redistest"
)

// credentials are files for TLS: the certificate of an authority, and one with
// its key that the authority has signed, which both sides of a test use.
type credentials struct{ authority, cert, key string }

func newCredentials(t *testing.T) (c credentials) {
	t.Helper()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	require.NoError(t, err)
	c.authority = write("ca.pem", "CERTIFICATE", der)

	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "either side"},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err = x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
	require.NoError(t, err)
	c.cert = write("cert.pem", "CERTIFICATE", der)
	der, err = x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	c.key = write("key.pem", "PRIVATE KEY", der)
	return c
}

// server is the configuration of a server that wants to see a certificate.
func (c credentials) server(t *testing.T) *tls.Config {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	require.NoError(t, err)
	text, err := os.ReadFile(c.authority)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text))
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

func (c credentials) flags() []string {
	return []string{"-tls", "-tls-ca", c.authority, "-tls-cert", c.cert, "-tls-key", c.key}
}

// startNATS starts a server that wants TLS, a certificate, and a password, and
// returns its address.
func startNATS(t *testing.T, c credentials, jetStream bool) string {
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, JetStream: jetStream, StoreDir: t.TempDir(),
		TLS: true, TLSConfig: c.server(t), TLSTimeout: 5, Username: "ann", Password: "secret",
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

// startRedis does the same with Redis: a proxy in front of it takes the TLS
// off.
func startRedis(t *testing.T, c credentials) string {
	s := redistest.NewServer(t, redistest.Options{})
	redistest.Must(t, s.Do(t.Context(), "ACL", "SETUSER", "ann", "on", ">secret", "~*", "&*", "+@all").Error())
	redistest.Must(t, s.Do(t.Context(), "ACL", "SETUSER", "default", "resetpass", ">other").Error())
	l, err := tls.Listen("tcp", "127.0.0.1:0", c.server(t))
	require.NoError(t, err)
	var serving sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	pass := func(conn net.Conn) {
		defer conn.Close()
		addr, err := s.HostAddr(context.Background())
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer to.Close()
		serving.Go(func() {
			io.Copy(to, conn)
			to.Close()
		})
		io.Copy(conn, to)
	}
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { pass(conn) })
		}
	})
	return l.Addr().String()
}

// runChat runs a chat in this process until the test ends.
func runChat(t *testing.T, args ...string) *chat {
	ctx, cancel := context.WithCancel(context.Background())
	stderr, code := new(output), make(chan int, 1)
	go func() { code <- run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), stderr) }()
	t.Cleanup(func() {
		cancel()
		assert.Equal(t, 0, <-code, "%s", stderr)
	})
	return &chat{t: t, url: "ws://" + stderr.address(t)}
}

// Two chats on each backend are one, by TLS with certificates on both sides and
// with a user and a password from the environment.
func TestBackends(t *testing.T) {
	t.Setenv(passwordVariable, "secret")
	c := newCredentials(t)
	for _, test := range []struct {
		adapter, where string
		start          func(*testing.T, credentials) string
	}{
		{"redis", "-redis", startRedis},
		{"sharded", "-redis", startRedis},
		{"partition", "-redis", func(t *testing.T, c credentials) string {
			return startRedis(t, c) + "," + startRedis(t, c)
		}},
		{"nats", "-nats", func(t *testing.T, c credentials) string { return startNATS(t, c, true) }},
	} {
		t.Run(test.adapter, func(t *testing.T) {
			args := append(c.flags(), "-adapter", test.adapter, test.where, test.start(t, c), "-user", "ann", "-history")
			a := runChat(t, args...).dial("room", "a")
			other := runChat(t, args...)
			b := other.dial("room", "b")
			a.say("hello")
			for _, page := range []*client{a, b} {
				require.Equal(t, "hello", page.next()["text"])
			}
			require.Equal(t, "hello", other.resume("room", "c", "v1-0-0").next()["text"])
		})
	}
}

// What is wrong with an address, a password or a certificate is said when the
// chat starts, in one sentence, and without the password.
func TestBackendsThatRefuse(t *testing.T) {
	c := newCredentials(t)
	addr := startNATS(t, c, false)
	for name, test := range map[string]struct {
		args     []string
		sentence string
	}{
		"wrong password":       {append(c.flags(), "-user", "ann", "-password", "guess-it"), "Authorization Violation"},
		"system's authority":   {[]string{"-user", "ann", "-password", "guess-it"}, "unknown authority"},
		"no certificate":       {[]string{"-tls", "-tls-ca", c.authority, "-user", "ann", "-password", "guess-it"}, "tls"},
		"another authority":    {append(newCredentials(t).flags(), "-user", "ann", "-password", "guess-it"), "unknown authority"},
		"histories not served": {append(c.flags(), "-user", "ann", "-password", "secret", "-history"), "-history needs JetStream of NATS at nats://" + addr},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			args := append([]string{"-addr", "127.0.0.1:0", "-adapter", "nats", "-nats", addr}, test.args...)
			require.Equal(t, 1, run(t.Context(), args, &stderr))
			require.Contains(t, stderr.String(), test.sentence)
			require.NotContains(t, stderr.String(), "guess-it")
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			require.True(t, strings.HasPrefix(lines[len(lines)-1], "chat: "), "%q", lines)
		})
	}
}
