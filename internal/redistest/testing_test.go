package redistest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestAnIdleHTTPConnectionIsNoLeak(t *testing.T) {
	others := goleak.IgnoreCurrent()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	got := make(chan error)
	go func() {
		r, err := (&http.Client{Transport: transport}).Get("http://" + l.Addr().String())
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
		got <- err
	}()
	conn, err := l.Accept()
	require.NoError(t, err)
	defer conn.Close()
	_, err = http.ReadRequest(bufio.NewReader(conn))
	require.NoError(t, err)
	_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	require.NoError(t, err)
	require.NoError(t, <-got)

	require.Error(t, goleak.Find(others), "the connection is there")
	require.NoError(t, leaks([]goleak.Option{others}))
}
