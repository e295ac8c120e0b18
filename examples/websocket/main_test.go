package main

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClientsOfARoom(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	serving, shutDown := context.WithCancel(ctx)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- serve(serving, ln) }()
	dial := func(room string) *websocket.Conn {
		ws, _, err := websocket.Dial(ctx, "ws://"+ln.Addr().String()+"/ws?room="+room, nil)
		require.NoError(t, err)
		t.Cleanup(func() { ws.CloseNow() })
		return ws
	}
	// say repeats itself until it is received: a socket is open before it has
	// joined.
	say := func(from, to *websocket.Conn, text string) {
		heard := make(chan struct{})
		go func() {
			defer close(heard)
			for {
				_, data, err := to.Read(ctx)
				if !assert.NoError(t, err) || string(data) == text {
					return
				}
			}
		}()
		for {
			require.NoError(t, from.Write(ctx, websocket.MessageText, []byte(text)))
			select {
			case <-heard:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	a, b, elsewhere := dial("lobby"), dial("lobby"), dial("elsewhere")
	say(elsewhere, elsewhere, "for nobody here")
	say(a, b, "hello")
	say(b, a, "hello, you")

	t.Run("a room without a name is refused", func(t *testing.T) {
		_, _, err := dial("").Read(ctx)
		assert.Equal(t, websocket.StatusPolicyViolation, websocket.CloseStatus(err))
	})
	t.Run("all are told of the end", func(t *testing.T) {
		shutDown()
		for _, ws := range []*websocket.Conn{a, b, elsewhere} {
			var err error
			for err == nil {
				_, _, err = ws.Read(ctx)
			}
			assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err))
		}
		assert.NoError(t, <-served)
	})
}
