package main

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func TestRun(t *testing.T) {
	s := redistest.NewServer(t, redistest.Options{})
	addr, err := s.HostAddr(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Do(t.Context(), "ACL", "SETUSER", "few", "on", ">secret", "~*", "&*", "+@all", "-evalsha", "-fcall").Error())
	for _, c := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"all works", []string{"redis://" + addr}, 0, "sharded Pub/Sub, one server"},
		{"classic", []string{"-classic", "redis://" + addr}, 0, "classic Pub/Sub, one server"},
		{"a user with few rights", []string{"redis://few:secret@" + addr}, 1, "histories: none"},
		{"a wrong password", []string{"redis://few:hidden@" + addr}, 2, "WRONGPASS"},
		{"nobody listens", []string{"redis://127.0.0.1:1"}, 2, "connection refused"},
		{"no address", nil, 2, "usage"},
		{"an address that is none", []string{"few:hidden@x"}, 2, "redis://user:password@host:port"},
		{"help", []string{"-help"}, 0, "usage"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			require.Equal(t, c.status, run(c.args, &out, &out), out.String())
			require.Contains(t, out.String(), c.says)
			require.NotContains(t, out.String(), "hidden")
		})
	}
}

func TestTimeout(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close() // connections are made, and nobody answers
	var out bytes.Buffer
	began := time.Now()
	require.Equal(t, 2, run([]string{"-timeout", "200ms", "redis://few:hidden@" + silent.Addr().String()}, &out, &out))
	require.Less(t, time.Since(began), 3*time.Second)
	require.Contains(t, out.String(), "connect to "+silent.Addr().String())
	require.Contains(t, out.String(), "-timeout is 200ms")
	require.NotContains(t, out.String(), "hidden")
}
