package tcpproxy_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/tcpproxy"
	"github.com/stretchr/testify/require"
)

// echo starts a server that returns what it gets.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() { // until the listener closes
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func TestProxy(t *testing.T) {
	p, err := tcpproxy.New(echo(t))
	require.NoError(t, err)
	defer p.Close()
	c, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	defer c.Close()
	answer := func(patience time.Duration) (string, error) {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
		b := make([]byte, 16)
		n, err := c.Read(b)
		return string(b[:n]), err
	}
	say := func(text string) {
		_, err := io.WriteString(c, text)
		require.NoError(t, err)
	}
	t.Run("passes on", func(t *testing.T) {
		say("one")
		got, err := answer(10 * time.Second)
		require.NoError(t, err)
		require.Equal(t, "one", got)
	})
	t.Run("takes its time", func(t *testing.T) {
		p.Delay(20 * time.Millisecond)
		defer p.Delay(0)
		began := time.Now()
		say("late")
		got, err := answer(10 * time.Second)
		require.NoError(t, err)
		require.Equal(t, "late", got)
		require.GreaterOrEqual(t, time.Since(began), 40*time.Millisecond, "there and back")
	})
	t.Run("is silent while it is held, and loses nothing", func(t *testing.T) {
		p.Hold(true)
		say("two")
		_, err := answer(50 * time.Millisecond)
		require.ErrorContains(t, err, "timeout")
		p.Hold(false)
		got, err := answer(10 * time.Second)
		require.NoError(t, err)
		require.Equal(t, "two", got)
	})
	t.Run("closes all connections", func(t *testing.T) {
		p.Reset()
		_, err := answer(10 * time.Second)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "timeout")
	})
}
