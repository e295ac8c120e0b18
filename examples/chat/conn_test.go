package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout"
)

func TestFramesSayHowLongTheyAre(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 1<<16 - 1, 1 << 16, 1 << 17} {
		doc := bytes.Repeat([]byte("x"), n)
		ours, theirs := net.Pipe()
		go func() {
			ours.Write(textFrame(doc))
			ours.Close()
		}()
		got, err := readFrame(bufio.NewReader(theirs))
		require.NoError(t, err, n)
		assert.Equal(t, rawFrame{first: 0x81, payload: doc}, got, n)
	}
}

// Batches, pings and frames for one page are written at the same time, over a
// network that takes each write in many small parts.
func TestFramesStayWhole(t *testing.T) {
	c := start(t, &fanout.Options{MaxMessage: 20_000}) // refuses more
	c.gate.shred.Store(true)
	c.server.timing.ping = 100 * time.Microsecond
	var pings atomic.Int64
	ws, _, err := websocket.Dial(t.Context(), c.socketURL("room", "page"), &websocket.DialOptions{
		OnPingReceived: func(context.Context, []byte) bool { pings.Add(1); return true },
	})
	require.NoError(t, err)
	ws.SetReadLimit(-1)
	defer ws.CloseNow()
	page := &client{t: t, ws: ws}

	const n = 200
	speaking := make(chan struct{})
	go func() {
		defer close(speaking)
		room := c.hub.Room("room")
		for i := range n {
			text := fmt.Append(nil, i, strings.Repeat("가", i*i%3000))
			assert.NoError(t, room.Publish(context.Background(), newSaid("x", "room", text)))
			if i%10 == 0 {
				page.say(strings.Repeat("x", 20_000))
			}
		}
	}()
	messages, failures := 0, 0
	for messages < n || failures < n/10 {
		m := page.next()
		if _, ok := m["error"]; ok {
			failures++
			continue
		}
		require.Equal(t, fmt.Sprint(messages, strings.Repeat("가", messages*messages%3000)), m["text"])
		messages++
	}
	<-speaking
	t.Logf("%d pings among %d messages and %d failures", pings.Load(), messages, failures)
	assert.NotZero(t, pings.Load())
}

// Between the server's close frame and the page's nothing else may be written.
func TestNothingFollowsAClose(t *testing.T) {
	c := start(t, nil)
	witness := c.dial("room", "witness")
	page := c.dialRaw("room", "page")
	page.write(0x82, nil) // binary, which is refused
	frame, err := readFrame(page.in)
	require.NoError(t, err)
	require.Equal(t, byte(0x88), frame.first)
	for range 100 {
		witness.say("x")
		witness.next()
	}
	page.write(0x88, frame.payload[:2])
	rest, err := io.ReadAll(page.in)
	assert.NoError(t, err)
	assert.Empty(t, rest)
}

func TestDeadlineIsForEveryWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := &conn{Conn: ours, timeout: 10 * time.Second}
		for range 10 {
			go readFrame(bufio.NewReader(theirs))
			require.NoError(t, c.send(textFrame(nil)), "longer after the first deadline than that was away")
			time.Sleep(c.timeout * 2 / 3)
		}
		began := time.Now()
		require.ErrorIs(t, c.send(textFrame(nil)), os.ErrDeadlineExceeded, "nobody reads")
		assert.GreaterOrEqual(t, time.Since(began), c.timeout)
		assert.LessOrEqual(t, time.Since(began), 2*c.timeout)
		go readFrame(bufio.NewReader(theirs))
		require.ErrorIs(t, c.send(textFrame(nil)), os.ErrDeadlineExceeded, "half a frame may have been written")
		ours.Close()
	})
}

// A rawFrame is a WebSocket frame as it is on the wire.
type rawFrame struct {
	first   byte
	payload []byte
}

func readFrame(r *bufio.Reader) (f rawFrame, err error) {
	var head [2]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	size := int(head[1])
	if long := map[byte]int{126: 2, 127: 8}[head[1]]; long > 0 {
		size = 0
		for range long {
			b, err := r.ReadByte()
			if err != nil {
				return f, err
			}
			size = size<<8 | int(b)
		}
	}
	f = rawFrame{first: head[0], payload: make([]byte, size)}
	_, err = io.ReadFull(r, f.payload)
	return f, err
}

// A rawClient is a page that does nothing by itself.
type rawClient struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (c *chat) dialRaw(room, name string) *rawClient {
	c.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http"+strings.TrimPrefix(c.socketURL(room, name), "ws"), nil)
	require.NoError(c.t, err)
	req.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	conn, err := net.Dial("tcp", req.URL.Host)
	require.NoError(c.t, err)
	c.t.Cleanup(func() { conn.Close() })
	require.NoError(c.t, conn.SetDeadline(time.Now().Add(patience)))
	require.NoError(c.t, req.Write(conn))
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, req)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusSwitchingProtocols, resp.StatusCode)
	return &rawClient{t: c.t, conn: conn, in: in}
}

// write writes a short frame, with a mask of zeros.
func (c *rawClient) write(first byte, payload []byte) {
	c.t.Helper()
	_, err := c.conn.Write(append([]byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...))
	require.NoError(c.t, err)
}

// shredded writes p in small parts, and lets others run between them.
func shredded(w io.Writer, p []byte) (n int, err error) {
	for len(p) > n && err == nil {
		var k int
		k, err = w.Write(p[n:min(n+100, len(p))])
		n += k
		runtime.Gosched()
	}
	return n, err
}
