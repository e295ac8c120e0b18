package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout"
)

// What one client does, and must not do to the others.

func TestControlCharacters(t *testing.T) {
	t.Run("are refused with a reason, and the connection goes on", func(t *testing.T) {
		c := start(t, nil)
		a, b := c.dial("room", "a"), c.dial("room", "b")
		for text, named := range map[string]string{
			"\x00":                        "U+0000",
			"a\x1b[31mb":                  "U+001B",
			"\x7f":                        "U+007F",
			"\u0085":                      "U+0085",
			strings.Repeat("\x01", 65536): "U+0001",
		} {
			a.say(text)
			m := a.next()
			assert.Contains(t, m["error"], "not sent", "%q", text)
			assert.Contains(t, m["error"], named)
		}
		a.say("line\n\tand line\r\nof a text, 👩‍👩‍👧")
		assert.Equal(t, "line\n\tand line\r\nof a text, 👩‍👩‍👧", a.next()["text"])
		assert.Equal(t, "line\n\tand line\r\nof a text, 👩‍👩‍👧", b.next()["text"], "the first that others hear")
	})
	t.Run("of a stranger are replaced", func(t *testing.T) {
		m := fanout.Message{Room: "r", Data: []byte("a\x00b\n\u0085c")}
		assert.Equal(t, `{"from":"","text":"a�b\n�c","room":"r","stranger":true}`, string(documentOf(&m)))
	})
}

// The document of a message is at most about twice as long as the text.
func TestDocumentsAreBounded(t *testing.T) {
	for _, unit := range []string{"x", `"`, `\`, "\n", "\u2028", "<", "가"} {
		text := strings.Repeat(unit, maxText/len(unit))
		require.Empty(t, wrongWith([]byte(text)), "%q", unit)
		assert.LessOrEqual(t, len(newSaid("n", "r", []byte(text))), maxDocument, "%q", unit)
		stranger := fanout.Message{Room: "r", Data: []byte(text + text)}
		assert.LessOrEqual(t, len(documentOf(&stranger)), maxDocument, "%q", unit)
	}
	worst := newSaid(strings.Repeat(`"`, maxName), strings.Repeat("\x01", 255), bytes.Repeat([]byte(`"`), maxText))
	assert.LessOrEqual(t, len(worst), maxDocument)
	for name, data := range map[string][]byte{
		"control characters": bytes.Repeat([]byte{1}, 1<<20),
		"not UTF-8":          bytes.Repeat([]byte{0xff}, 1<<20),
		"a longer document": encode(said{
			From: "a", Room: "r",
			Text: strings.Repeat("\x01", maxText),
		}),
	} {
		m := fanout.Message{Room: "r", Sender: "hub", Data: data}
		doc := documentOf(&m)
		assert.LessOrEqual(t, len(doc), 3*maxText+1024, name)
		assert.Contains(t, string(doc[len(doc)-20:]), `"stranger":true`, name)
	}
}

// However long a message is, its frame is made for the first page that reads
// it, and not again for each.
func TestFrameOfALongMessageIsMadeOnce(t *testing.T) {
	f := newFrames()
	for _, n := range []int{generation / 16, generation/16 + 1, 1 << 20, 4 << 20} {
		m := fanout.Message{Room: "r", Sender: "hub", Data: bytes.Repeat([]byte("x"), n)}
		assert.Same(t, f.of(&m, nil), f.of(&m, nil), "%d bytes", n)
	}
}

func TestAnnouncedLengthIsJudgedBeforeItIsWaitedFor(t *testing.T) {
	for name, after := range map[string]int{
		"and nothing comes":                0,
		"and some of it comes":             100,
		"and more comes than is allowed":   maxText + 2,
		"and much more comes than allowed": 1 << 20,
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, nil)
			c.server.timing.goodbye = 500 * time.Millisecond
			page := c.dialRaw("room", "hostile")
			head := []byte{0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0} // 2^62 bytes
			page.send(append(head, make([]byte, 4+after)...))
			assert.Equal(t, 1009, page.closedWith())
			c.membersBecome(0)
			_, err := io.Copy(io.Discard, page.in)
			assert.NotErrorIs(t, err, context.DeadlineExceeded, "the server hangs up")
		})
	}
}

// Whatever does not arrive, the connection and the member end.
func TestSilentClientGoes(t *testing.T) {
	ping := append([]byte{0x89, 0x85, 0, 0, 0, 0}, "hello"...)
	for name, sent := range map[string][]byte{
		"at once":                     nil,
		"after a message":             {0x81, 0x81, 0, 0, 0, 0, 'x'},
		"in a header":                 {0x81},
		"in a length":                 {0x81, 0xfe, 0},
		"in a mask":                   {0x81, 0x85, 0, 0},
		"in a payload":                {0x81, 0x85, 0, 0, 0, 0, 'h'},
		"in a control frame":          {0x89, 0x85, 0, 0, 0, 0, 'h'},
		"in a fragmented message":     {0x01, 0x81, 0, 0, 0, 0, 'h'},
		"in a message with pings":     append([]byte{0x01, 0x81, 0, 0, 0, 0, 'h'}, ping...),
		"after it was refused":        {0x81, 0x81, 0, 0, 0, 0, 0xff},
		"in a frame that was refused": {0x82, 0x85, 0, 0, 0, 0, 'h'},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, nil)
			c.server.timing.ping, c.server.timing.pong = 100*time.Millisecond, 200*time.Millisecond
			c.server.timing.goodbye = 300 * time.Millisecond
			page := c.dialRaw("room", "silent")
			page.send(sent)
			c.membersBecome(0)
			_, err := io.Copy(io.Discard, page.in)
			assert.NotErrorIs(t, err, context.DeadlineExceeded, "the server hangs up")
		})
	}
}

// A client that never finishes a message is silent, whatever else it sends.
func TestMessageMustArriveInTime(t *testing.T) {
	c := start(t, nil)
	c.server.timing.ping, c.server.timing.pong = 100*time.Millisecond, 200*time.Millisecond
	page := c.dialRaw("room", "slow")
	page.send([]byte{0x01, 0x81, 0, 0, 0, 0, 'h'})
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
				if _, err := page.conn.Write([]byte{0x8a, 0x80, 0, 0, 0, 0}); err != nil {
					return
				}
			}
		}
	})
	c.membersBecome(0)
	close(stop)
	sending.Wait()
}

// countingStub is a backend that counts what rooms are subscribed to.
func countingStub() (a *stub, subscribed func() int) {
	var mu sync.Mutex
	rooms := 0
	a = &stub{subscribe: func(_ context.Context, channel string) error {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(channel, "fanout:r:") {
			rooms++
		}
		return nil
	}}
	a.publish = func(_ context.Context, channel string, frame []byte) (int, error) {
		a.receiver.Receive(channel, frame)
		return 1, nil
	}
	return a, func() int {
		mu.Lock()
		defer mu.Unlock()
		return rooms
	}
}

// upgrade is a request that is answered with a WebSocket.
func upgrade() http.Header {
	return http.Header{
		"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"WebSocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
}

func TestOnlyAnUpgradeSubscribes(t *testing.T) {
	a, subscribed := countingStub()
	c := startOn(t, a, nil)
	request := func(method string, change func(http.Header)) *http.Response {
		room := fmt.Sprint("room", time.Now().UnixNano())
		req, err := http.NewRequest(method, "http"+strings.TrimPrefix(c.socketURL(room, "n"), "ws"), nil)
		require.NoError(t, err)
		req.Header = upgrade()
		change(req.Header)
		resp, err := http.DefaultTransport.RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		return resp
	}
	for name, tc := range map[string]struct {
		method string
		change func(http.Header)
		status int
	}{
		"a plain GET":           {"GET", func(h http.Header) { clear(h) }, 426},
		"a HEAD":                {"HEAD", func(h http.Header) {}, 405},
		"a POST":                {"POST", func(h http.Header) {}, 405},
		"no Connection":         {"GET", func(h http.Header) { h.Del("Connection") }, 426},
		"another protocol":      {"GET", func(h http.Header) { h.Set("Upgrade", "h2c") }, 426},
		"an old version":        {"GET", func(h http.Header) { h.Set("Sec-WebSocket-Version", "8") }, 426},
		"no key":                {"GET", func(h http.Header) { h.Del("Sec-WebSocket-Key") }, 400},
		"two keys":              {"GET", func(h http.Header) { h.Add("Sec-WebSocket-Key", h.Get("Sec-WebSocket-Key")) }, 400},
		"a key that is none":    {"GET", func(h http.Header) { h.Set("Sec-WebSocket-Key", "x") }, 400},
		"a short key":           {"GET", func(h http.Header) { h.Set("Sec-WebSocket-Key", "c2hvcnQ=") }, 400},
		"another site":          {"GET", func(h http.Header) { h.Set("Origin", "https://evil.example") }, 403},
		"an origin like ours":   {"GET", func(h http.Header) { h.Set("Origin", c.url+".evil.example") }, 403},
		"an origin that's none": {"GET", func(h http.Header) { h.Set("Origin", "null") }, 403},
	} {
		resp := request(tc.method, tc.change)
		assert.Equal(t, tc.status, resp.StatusCode, name)
		if tc.status == http.StatusUpgradeRequired {
			assert.Equal(t, "13", resp.Header.Get("Sec-WebSocket-Version"), name)
		}
	}
	for range 200 {
		request("GET", func(h http.Header) { clear(h) })
	}
	assert.Zero(t, subscribed(), "rooms that the backend was asked for")
	assert.Zero(t, c.hub.Stats().Members)
	c.dial("room", "n")
	assert.Equal(t, 1, subscribed())
	resp := request("GET", func(h http.Header) { h.Set("Origin", "http"+strings.TrimPrefix(c.url, "ws")) })
	assert.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	assert.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-WebSocket-Accept"), "as in RFC 6455, section 1.3")
}

// The announced body of a request, or its rest, may never arrive.
func TestRequestsHaveNoBody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stderr := new(output)
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"-addr", "127.0.0.1:0"}, stderr) }()
	addr := stderr.address(t)
	for _, path := range []string{"/", "/ws?room=r&name=n", "/healthz", "/nowhere"} {
		for _, request := range []string{
			"GET %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
			"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello",
			"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n",
			"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
			"GET %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		} {
			conn, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			require.NoError(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
			fmt.Fprintf(conn, request, path)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err, request)
			assert.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode, request)
			_, err = io.Copy(io.Discard, conn)
			var timeout net.Error
			assert.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the server hangs up after %q", request)
			conn.Close()
		}
	}
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	go fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", strings.Repeat("x", 100_000))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
	cancel()
	assert.Zero(t, <-code)
}

func TestFragmentsAreCounted(t *testing.T) {
	c := start(t, nil)
	c.server.timing.goodbye = 500 * time.Millisecond
	witness := c.dial("room", "witness")
	page := c.dialRaw("room", "hostile")
	frames := []byte{0x01, 0x80, 0, 0, 0, 0}
	for range 100_000 {
		frames = append(frames, 0x00, 0x80, 0, 0, 0, 0)
	}
	go page.conn.Write(frames)
	assert.Equal(t, 1008, page.closedWith())
	c.membersBecome(1)
	witness.say("undisturbed")
	assert.Equal(t, "undisturbed", witness.next()["text"])

	good := c.dialRaw("room", "good")
	good.send([]byte{0x01, 0x80, 0, 0, 0, 0})
	for range 500 {
		good.send([]byte{0x00, 0x81, 0, 0, 0, 0, 'x'})
	}
	good.send([]byte{0x80, 0x80, 0, 0, 0, 0})
	assert.Equal(t, strings.Repeat("x", 500), witness.next()["text"])
}

// A client that floods is read from as slowly as is allowed; others are not
// affected.
func TestFloodIsSlowedDown(t *testing.T) {
	for name, frame := range map[string][]byte{
		"of pings":    {0x89, 0x80, 0, 0, 0, 0},
		"of pongs":    {0x8a, 0x80, 0, 0, 0, 0},
		"of messages": {0x81, 0x80, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var pongs atomic.Int64
			c := start(t, nil)
			c.server.limits.frames = allowance{rate: 50, burst: 100}
			c.server.timing.goodbye = 500 * time.Millisecond
			page := c.dialRaw("room", "hostile")
			began := time.Now()
			go page.conn.Write(append(bytes.Repeat(frame, 150), 0x89, 0x80, 0, 0, 0, 0))
			for {
				got, err := readFrame(page.in)
				require.NoError(t, err)
				if got.first == 0x8a && (name != "of pings" || pongs.Add(1) == 151) {
					break // the answer to the last
				}
			}
			assert.GreaterOrEqual(t, time.Since(began), 700*time.Millisecond, "51 that were more than a burst, at 50 a second")
		})
	}
	t.Run("of bytes", func(t *testing.T) {
		c := start(t, nil)
		c.server.limits.bytes = allowance{rate: maxText, burst: maxText}
		a := c.dial("room", "a")
		began := time.Now()
		for range 3 {
			a.say(strings.Repeat("x", maxText))
		}
		for range 3 {
			a.next()
		}
		assert.GreaterOrEqual(t, time.Since(began), 900*time.Millisecond)
	})
}

func TestPagesAreCounted(t *testing.T) {
	c := start(t, nil)
	c.server.limits.pages = 2
	a := c.dial("room", "a")
	c.dial("room", "b")
	assert.Equal(t, http.StatusServiceUnavailable, c.refused("room", "c").StatusCode)
	a.ws.CloseNow()
	c.membersBecome(1)
	require.Eventually(t, func() bool { return c.server.open() == 1 }, patience, time.Millisecond)
	c.dial("room", "c")
}

// However many requests come at once, the backend is asked once.
func TestHealthIsAskedOnceForAll(t *testing.T) {
	var mu sync.Mutex
	published := 0
	a := &stub{}
	a.publish = func(_ context.Context, channel string, frame []byte) (int, error) {
		mu.Lock()
		published++
		mu.Unlock()
		a.receiver.Receive(channel, frame)
		return 1, nil
	}
	c := startOn(t, a, nil)
	var asking sync.WaitGroup
	for range 100 {
		asking.Go(func() {
			resp, err := http.Get("http" + strings.TrimPrefix(c.url, "ws") + "/healthz")
			if assert.NoError(t, err) {
				resp.Body.Close()
				assert.Equal(t, http.StatusOK, resp.StatusCode)
			}
		})
	}
	asking.Wait()
	mu.Lock()
	defer mu.Unlock()
	assert.Less(t, published, 20)
}

// send writes bytes as they are.
func (c *rawClient) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil && !errors.Is(err, net.ErrClosed) {
		c.t.Log("writing:", err) // the server may have closed the connection already
	}
}

// closedWith reads to the close frame and returns its status code, 0 if it has
// none, -1 if the connection ended without one.
func (c *rawClient) closedWith() int {
	c.t.Helper()
	for {
		frame, err := readFrame(c.in)
		switch {
		case err != nil:
			c.t.Log("reading:", err)
			return -1
		case frame.first != 0x88:
		case len(frame.payload) < 2:
			return 0
		default:
			return int(frame.payload[0])<<8 | int(frame.payload[1])
		}
	}
}

// open returns how many sockets there are.
func (s *server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pages
}
