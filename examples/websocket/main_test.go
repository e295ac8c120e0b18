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

	"github.com/fanoutgo/fanout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGoodbye(t *testing.T) {
	ctx := t.Context()
	hub, err := fanout.New(nil, &fanout.Options{Window: fanout.Window{Messages: 1}, Overflow: fanout.Disconnect})
	require.NoError(t, err)
	defer hub.Close(ctx)
	var members []*fanout.Member
	for range 3 {
		m, err := hub.Connect(nil)
		require.NoError(t, err)
		members = append(members, m)
	}
	kicked, slow, drained := members[0], members[1], members[2]
	require.NoError(t, hub.To(kicked.ID()).Close(ctx, "removed by Ann"))
	require.NoError(t, hub.Room("lobby").Join(ctx, slow))
	for range 3 {
		require.NoError(t, hub.Room("lobby").Publish(ctx, nil))
	}
	<-slow.Done()
	require.NoError(t, hub.Drain(ctx))
	for name, test := range map[string]struct {
		member *fanout.Member
		status websocket.StatusCode
		reason string
	}{
		"a client that was kicked stays away":               {kicked, statusKicked, "removed by Ann"},
		"one that was too slow may come back":               {slow, websocket.StatusTryAgainLater, "the connection is too slow for the room"},
		"one whose server drains comes back to another one": {drained, websocket.StatusGoingAway, "the server is shutting down"},
	} {
		t.Run(name, func(t *testing.T) {
			status, reason := goodbye(test.member.Err())
			assert.Equal(t, test.status, status)
			assert.Equal(t, test.reason, reason)
		})
	}
}

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
			assert.ErrorContains(t, err, "the server is shutting down")
		}
		assert.NoError(t, <-served)
	})
}
