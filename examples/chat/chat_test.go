package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/logtest"
)

// patience is how long a test waits for what should arrive at once.
const patience = 20 * time.Second

func TestEveryoneHearsEveryMessageInOneOrder(t *testing.T) {
	c := start(t, nil)
	a, b := c.dial("방", "민수"), c.dial("방", "Ann")
	elsewhere := c.dial("elsewhere", "Eve")
	a.say("안녕하세요 <b>&</b> \u2028\"")
	first := a.next()
	assert.Equal(t, "민수", first["from"], "the sender gets its own message")
	assert.Equal(t, "안녕하세요 <b>&</b> \u2028\"", first["text"])
	assert.Equal(t, "방", first["room"])
	_, err := time.Parse(time.RFC3339, first["time"].(string))
	assert.NoError(t, err)
	assert.Equal(t, first, b.next())

	const each = 50
	var wg sync.WaitGroup
	for _, speaker := range []*client{a, b} {
		wg.Go(func() {
			for i := range each {
				speaker.say(fmt.Sprint(i))
			}
		})
	}
	wg.Wait()
	var fromA, fromB []map[string]any
	for range 2 * each {
		fromA, fromB = append(fromA, a.next()), append(fromB, b.next())
	}
	assert.Equal(t, fromA, fromB)
	said := make(map[string]int)
	for _, m := range fromA {
		from := m["from"].(string)
		assert.Equal(t, fmt.Sprint(said[from]), m["text"], "a client's messages stay in their order")
		said[from]++
	}

	b.say("") // an empty message is a message too
	assert.Equal(t, "", a.next()["text"])
	elsewhere.say("mine")
	assert.Equal(t, "mine", elsewhere.next()["text"], "the first that is heard in another room")
}

func TestBadRequests(t *testing.T) {
	c := start(t, nil)
	other := c.dial("room", "other")
	for query, sentence := range map[string]string{
		"":                                       "the room is missing",
		"name=n":                                 "the room is missing",
		"room=&name=n":                           "the room is missing",
		"room=r":                                 "the name is missing",
		"room=r&name=%20%20":                     "the name is missing",
		"room=r&name=" + strings.Repeat("x", 65): "at most 64 are allowed",
		"room=r&name=" + strings.Repeat("가", 22):  "at most 64 are allowed",
		"room=r&name=%FF":                         "not valid UTF-8",
		"room=r&name=a%0Ab":                       "control character",
		"name=n&room=" + strings.Repeat("x", 256): "at most 255 are allowed",
		"name=n&room=%FF":                         "invalid room name",
		"room=r&name=n&since=":                    `since: fanout: invalid position: "" is not v1-epoch-offset`,
		"room=r&name=n&since=5":                   "is not v1-epoch-offset",
		"room=r&name=n&since=v1-+5-1":             "is not v1-epoch-offset",
		"room=r&name=n&since=v1-0-7":              "is not v1-epoch-offset",
		"room=r&name=n&since=v1--1-7":             "is not v1-epoch-offset",
	} {
		_, resp, err := websocket.Dial(t.Context(), c.url+"/ws?"+query, nil)
		require.Error(t, err, query)
		require.NotNil(t, resp, query)
		body, _ := io.ReadAll(resp.Body)
		assert.Equal(t, http.StatusBadRequest, resp.StatusCode, query)
		assert.Contains(t, string(body), sentence, query)
	}
	_, resp, err := websocket.Dial(t.Context(), c.url+"/ws?room=room&name=n", &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"https://evil.example"}},
	})
	require.Error(t, err)
	assert.Equal(t, http.StatusForbidden, resp.StatusCode, "another site's page")
	status, _ := c.get("/ws?room=room&name=n")
	assert.Equal(t, http.StatusUpgradeRequired, status, "no WebSocket")
	status, _ = c.get("/nowhere")
	assert.Equal(t, http.StatusNotFound, status)

	c.dial("room", strings.Repeat("가", 21)+"x") // 64 bytes
	c.dial(strings.Repeat("x", 255), "n")
	other.say("undisturbed")
	assert.Equal(t, "undisturbed", other.next()["text"])
}

func TestBadFrames(t *testing.T) {
	for _, tc := range []struct {
		name   string
		typ    websocket.MessageType
		data   []byte
		status websocket.StatusCode
		reason string
	}{
		{"too long", websocket.MessageText, bytes.Repeat([]byte("x"), maxText+1), websocket.StatusMessageTooBig, "65536 bytes at most"},
		{"much too long", websocket.MessageText, bytes.Repeat([]byte("x"), 1<<20), websocket.StatusMessageTooBig, "65536 bytes at most"},
		{"binary", websocket.MessageBinary, []byte("x"), websocket.StatusUnsupportedData, "only text"},
		{"not UTF-8", websocket.MessageText, []byte("\xff"), websocket.StatusInvalidFramePayloadData, "valid UTF-8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, nil)
			bad, good := c.dial("room", "bad"), c.dial("room", "good")
			require.NoError(t, bad.ws.Write(t.Context(), tc.typ, tc.data))
			status, reason := bad.closed()
			assert.Equal(t, tc.status, status)
			assert.Contains(t, reason, tc.reason)
			good.say("undisturbed")
			assert.Equal(t, "undisturbed", good.next()["text"], "and nothing of the other's came before")
		})
	}
	t.Run("just short enough", func(t *testing.T) {
		c := start(t, nil)
		a := c.dial("room", "a")
		for _, text := range []string{strings.Repeat("가", maxText/3), strings.Repeat("x", maxText), strings.Repeat(`"`, maxText)} {
			a.say(text)
			assert.Equal(t, text, a.next()["text"])
		}
	})
}

func TestBatchIsOneWrite(t *testing.T) {
	c := start(t, nil)
	laggard := c.dial("room", "laggard")
	const n = 1000
	c.gate.shut()
	before := c.gate.writes.Load()
	room := c.hub.Room("room")
	for i := range n {
		require.NoError(t, room.Publish(t.Context(), newSaid("x", "room", fmt.Append(nil, i))))
	}
	c.gate.open()
	for i := range n {
		require.Equal(t, fmt.Sprint(i), laggard.next()["text"])
	}
	writes := c.gate.writes.Load() - before
	t.Logf("%d messages in %d writes", n, writes)
	// What was ready when the first message was written goes alone, the rest in
	// batches, which grow to their full size.
	most := 1
	for left, size := n, minBatch; left > 0; left, size = left-size, min(2*size, maxBatch) {
		most++
	}
	assert.LessOrEqual(t, writes, int64(most))
}

func TestControlFramesDoNotWaitForABatch(t *testing.T) {
	c := start(t, nil)
	quiet := c.dial("room", "quiet")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	quiet.ws.CloseRead(ctx) // pongs come through a read
	for range 3 {
		require.NoError(t, quiet.ws.Ping(ctx))
	}
	quiet.ws.CloseNow()
	c.membersBecome(0)
}

func TestGapIsAFrameOfItsOwn(t *testing.T) {
	c := start(t, &fanout.Options{Window: fanout.Window{Messages: 10}})
	laggard := c.dial("room", "laggard")
	c.gate.shut()
	const n = 100
	room := c.hub.Room("room")
	for i := range n {
		require.NoError(t, room.Publish(t.Context(), newSaid("x", "room", fmt.Append(nil, i))))
		if i == 0 {
			c.gate.awaitBlocked(t)
		}
	}
	c.gate.open()
	var received, missed int
	for received+missed < n {
		m := laggard.next()
		if gap, ok := m["gap"]; ok {
			assert.NotContains(t, m, "text")
			assert.Equal(t, false, m["unknown"])
			missed += int(gap.(float64))
			continue
		}
		assert.Equal(t, fmt.Sprint(received+missed), m["text"], "the gap stands where it belongs")
		received++
	}
	assert.Equal(t, n, received+missed)
	assert.Equal(t, n-11, missed)
}

func TestBrokenLinkIsOneGap(t *testing.T) {
	a := &stub{}
	a.publish = func(_ context.Context, channel string, frame []byte) (int, error) {
		a.receiver.Receive(channel, frame)
		return 1, nil
	}
	c := startOn(t, a, nil)
	page := c.dial("room", "page")
	for _, channel := range []string{"fanout:r:{room}", "fanout:i:{" + c.hub.ID() + "}", "fanout:a:{everyone}"} {
		a.receiver.Interrupted(channel)
		a.receiver.Restored(channel)
	}
	assert.Equal(t, map[string]any{"gap": 0.0, "unknown": true}, page.next())
	page.say("after")
	assert.Equal(t, "after", page.next()["text"])
}

func TestSlowClientIsDroppedAndDelaysNobody(t *testing.T) {
	c := start(t, nil)
	c.server.timing.write = 300 * time.Millisecond
	slow, good := c.dial("room", "slow"), c.dial("room", "good")
	_ = slow // does not read
	text := bytes.Repeat([]byte("x"), maxText)
	for deadline := time.Now().Add(patience); c.hub.Stats().Members == 2; {
		require.True(t, time.Now().Before(deadline), "the slow client was not dropped")
		require.NoError(t, c.hub.Room("room").Publish(t.Context(), newSaid("x", "room", text)))
		assert.Len(t, good.next()["text"], maxText)
	}
	good.say("still here")
	assert.Equal(t, "still here", good.next()["text"])
}

func TestEndedMemberIsFreedFromAStuckWrite(t *testing.T) {
	c := start(t, nil)
	c.server.timing.write, c.server.timing.grace = time.Hour, 50*time.Millisecond
	c.dial("room", "stuck")
	c.gate.shut()
	require.NoError(t, c.hub.Room("room").Publish(t.Context(), newSaid("x", "room", nil)))
	c.gate.awaitBlocked(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, c.hub.Close(ctx))
	require.NoError(t, c.server.wait(ctx))
}

func TestHubThatClosesSaysGoodbye(t *testing.T) {
	c := start(t, nil)
	a := c.dial("room", "a")
	require.NoError(t, c.hub.Close(t.Context()))
	status, _ := a.closed()
	assert.Equal(t, websocket.StatusGoingAway, status)
	resp := c.refused("room", "late")
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
}

func TestDeadClientIsDropped(t *testing.T) {
	c := start(t, nil)
	c.server.timing.ping, c.server.timing.pong = 20*time.Millisecond, time.Second
	var pings atomic.Int64
	alive, _, err := websocket.Dial(t.Context(), c.socketURL("room", "alive"), &websocket.DialOptions{
		OnPingReceived: func(context.Context, []byte) bool { pings.Add(1); return true },
	})
	require.NoError(t, err)
	reading := alive.CloseRead(t.Context()) // reading answers pings
	c.dial("room", "dead")                  // reads nothing, so it answers no ping
	c.membersBecome(1)
	seen := pings.Load()
	require.Eventually(t, func() bool { return pings.Load() > seen+3 }, patience, time.Millisecond, "who answers is asked again")
	assert.NoError(t, reading.Err(), "and stays")
	alive.CloseNow()
}

func TestHealth(t *testing.T) {
	c := start(t, nil)
	status, body := c.get("/healthz")
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "ok\n", body)
	c.server.drain()
	status, body = c.get("/healthz")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Contains(t, body, "shutting down")

	c = start(t, nil)
	require.NoError(t, c.hub.Close(t.Context()))
	status, body = c.get("/healthz")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Contains(t, body, "closed")

	// A backend that accepts everything and returns nothing.
	c = startOn(t, &stub{publish: func(context.Context, string, []byte) (int, error) { return 1, nil }}, nil)
	c.server.timing.health = 50 * time.Millisecond
	status, body = c.get("/healthz")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Contains(t, body, "deadline")
}

func TestFailedPublishIsToldAndTheConnectionGoesOn(t *testing.T) {
	var down atomic.Bool
	a := &stub{}
	a.publish = func(_ context.Context, channel string, frame []byte) (int, error) {
		if down.Load() {
			return 0, fmt.Errorf("dial 10.1.2.3: %w: %w", fanout.ErrRefused, fanout.ErrUnsent)
		}
		a.receiver.Receive(channel, frame)
		return 1, nil
	}
	c := startOn(t, a, nil)
	p := c.dial("room", "p")
	down.Store(true)
	for range 2 {
		p.say("lost")
		m := p.next()
		assert.Contains(t, m["error"], "not sent")
		assert.NotContains(t, m["error"], "10.1.2.3")
		assert.NotContains(t, m, "text")
	}
	down.Store(false)
	p.say("heard")
	assert.Equal(t, "heard", p.next()["text"])
}

func TestStrangersAreMarked(t *testing.T) {
	a := &stub{}
	a.publish = func(_ context.Context, channel string, frame []byte) (int, error) {
		a.receiver.Receive(channel, frame)
		return 1, nil
	}
	c := startOn(t, a, nil)
	page := c.dial("room", "page")
	for data, text := range map[string]string{
		"hello":                           "hello",
		"":                                "",
		"안\xff녕":                          "안\uFFFD녕",
		`{"from":"민수","text":"forged"}`:   `{"from":"민수","text":"forged"}`,
		strings.Repeat("x", 10*maxText):   strings.Repeat("x", maxText) + "…",
		"xy" + strings.Repeat("가", 30000): "xy" + strings.Repeat("가", (maxText-2)/3) + "…",
	} {
		a.receiver.Receive("fanout:r:{room}", []byte(data))
		assert.Equal(t, map[string]any{"from": "", "text": text, "room": "room", "stranger": true}, page.next())
	}
	// Another program on the same Redis, which uses fanout but is no chat.
	for _, data := range []string{
		"plain", `{"gap":3}`, `{"FROM":"a","TEXT":"b"}`, `{"from":"a","text":5}`, "{\"from\":\"a\",\"text\":\"\xff\"}",
		`{"from":"a","text":"b","stranger":false}`, `{"from":"a","text":"b","pos":"9-9"}`, `{"p\u006fs":null,"from":"a","text":"b"}`,
		`["from","text"]`, "null", "",
	} {
		require.NoError(t, c.hub.Room("room").Publish(t.Context(), []byte(data)))
		m := page.next()
		assert.Equal(t, "", m["from"])
		assert.Equal(t, true, m["stranger"], data)
		assert.Equal(t, strings.ToValidUTF8(data, "\uFFFD"), m["text"])
	}
	// A newer version of this program.
	require.NoError(t, c.hub.Room("room").Publish(t.Context(), []byte(`{"from":"a","text":"b","color":"red"}`)))
	assert.Equal(t, map[string]any{"from": "a", "text": "b", "color": "red"}, page.next())
}

func TestDataIsPassedOnUnchangedAndItsFrameIsMadeOnce(t *testing.T) {
	f := newFrames()
	m := fanout.Message{Room: "r", Sender: "0123456789abcdef", Data: newSaid("가", "r", []byte("텍스트"))}
	assert.Equal(t, textFrame(m.Data), f.of(&m, nil).bytes)
	stranger := fanout.Message{Room: "r", Data: []byte("hello")}
	// A message that the room keeps has a position.
	kept := fanout.Message{Room: "r", Sender: m.Sender, Data: newSaid("가", "r", nil), Position: fanout.Position{Epoch: 7, Offset: 1}}
	for _, m := range []*fanout.Message{&m, &stranger, &kept} {
		assert.Same(t, f.of(m, nil), f.of(m, nil))
	}
	allocs := testing.AllocsPerRun(100, func() { f.of(&kept, f.of(&stranger, f.of(&m, nil))) })
	assert.Zero(t, allocs)
}

// The documents that newSaid makes need no parsing of JSON, and no others do.
func TestPlainDocumentsAreRecognised(t *testing.T) {
	for _, text := range []string{"", "안녕하세요", "<b>&</b>", "a}", "\u2028"} {
		doc := newSaid("민수", "방", []byte(text))
		assert.Equal(t, text != "\u2028", isPlainlySaid(doc), "%s", doc)
		assert.True(t, isSaid(doc))
	}
	for _, text := range []string{`"`, `\`, "\n", `","pos":"9-9`} {
		doc := newSaid("a", "r", []byte(text))
		assert.False(t, isPlainlySaid(doc), "%s", doc)
		assert.True(t, isSaid(doc), "but by a longer look")
	}
	plain := `{"from":"a","text":"b","room":"r","time":"t"}`
	assert.True(t, isPlainlySaid([]byte(plain)))
	for i := range plain {
		assert.False(t, isPlainlySaid([]byte(plain[:i])), "cut off")
		assert.False(t, isPlainlySaid([]byte(plain[:i]+"\x00"+plain[i:])), "a control character at %d", i)
	}
	for _, wrong := range []string{plain + " ", plain + "}", `{"from":"a","text":"b","room":"r","time":"t","pos":"9-9"}`} {
		assert.False(t, isPlainlySaid([]byte(wrong)), wrong)
	}
}

func TestPage(t *testing.T) {
	c := start(t, nil)
	resp, err := http.Get("http" + strings.TrimPrefix(c.url, "ws") + "/")
	require.NoError(t, err)
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, "text/html; charset=utf-8", resp.Header.Get("Content-Type"))
	assert.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'")
	assert.NotContains(t, string(body), "innerHTML")
	assert.Empty(t, regexp.MustCompile(`(src|href)="?(https?:)?//`).FindString(string(body)), "nothing from elsewhere")
}

func TestFlagsThatAreWrong(t *testing.T) {
	t.Setenv(passwordVariable, "")
	before := goleak.IgnoreCurrent()
	defer func() {
		// A Redis client that could not connect has a goroutine that sleeps for
		// a second, which is longer than the check after all tests waits.
		for deadline := time.Now().Add(patience); goleak.Find(before) != nil && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	for args, want := range map[string]struct {
		code     int
		sentence string
	}{
		"-adapter carrier-pigeon":                                                        {2, `-adapter "carrier-pigeon" is unknown: choose memory, redis, sharded, partition or nats`},
		"-adapter sharded":                                                               {2, "-adapter sharded needs -redis host:port"},
		"-adapter redis -redis ,":                                                        {2, "-adapter redis needs -redis host:port"},
		"-adapter nats":                                                                  {2, "-adapter nats needs -nats host:port"},
		"-redis 127.0.0.1:6379":                                                          {2, "-redis has no effect with -adapter memory: choose redis, sharded or partition"},
		"-nats 127.0.0.1:4222":                                                           {2, "-nats has no effect with -adapter memory: choose nats"},
		"-adapter redis -redis localhost":                                                {2, `-redis: "localhost" is not host:port`},
		"-user ann":                                                                      {2, "no effect with -adapter memory"},
		"-adapter redis -redis a:1 -user ann":                                            {2, "-user needs a password: set CHAT_PASSWORD"},
		"-adapter redis -redis a:1 -tls-ca x":                                            {2, "-tls-ca, -tls-cert and -tls-key have no effect without -tls"},
		"-adapter redis -redis a:1 -tls -tls-ca testdata/none":                           {2, "-tls-ca: open testdata/none"},
		"-adapter redis -redis a:1 -tls -tls-ca main.go":                                 {2, "-tls-ca: main.go has no certificate in PEM"},
		"-adapter redis -redis a:1 -tls -tls-cert main.go":                               {2, "-tls-cert and -tls-key belong together"},
		"-adapter nats -nats a:1 -tls -tls-cert main.go -tls-key main.go":                {2, "-tls-cert main.go and -tls-key main.go: "},
		"-adapter redis -redis a:1 -read-from replicas":                                  {2, "-read-from has no effect with -adapter redis: choose sharded"},
		"-adapter sharded -redis a:1 -read-from none":                                    {2, `-read-from "none" is unknown: choose primaries, primaries-uncounted, replicas or all`},
		"-migrate-to nats -migrate-servers a:1":                                          {2, "-migrate-to has no effect with -adapter memory: choose redis, sharded, partition or nats"},
		"-adapter redis -redis a:1 -migrate-to memory":                                   {2, `-migrate-to "memory" is unknown: choose redis, sharded, partition or nats`},
		"-adapter redis -redis a:1 -migrate-to nats":                                     {2, "-migrate-to nats needs -migrate-servers host:port"},
		"-adapter redis -redis a:1 -migrate-to nats -migrate-servers a":                  {2, `-migrate-servers: "a" is not host:port`},
		"-adapter redis -redis a:1 -migration x":                                         {2, "have no effect without -migrate-to"},
		"-adapter redis -redis a:1 -migrate-to nats -migrate-servers b:1":                {2, "-migrate-to nats needs -migration name"},
		"-adapter redis -redis a:1 -migrate-to nats -migrate-servers b:1 -migration {x}": {2, `-migration "{x}" is longer than 100 bytes, or has one of %{}`},

		"-adapter sharded -redis a:1 -migrate-to nats -migrate-servers b:1 -migrate-read-from all":    {2, "-migrate-read-from has no effect with -migrate-to nats: choose sharded"},
		"-adapter redis -redis a:1 -migrate-to sharded -migrate-servers b:1 -read-from all":           {2, "-read-from has no effect with -adapter redis: choose sharded"},
		"-adapter sharded -redis a:1,b:1 -migrate-to partition -migrate-servers c:1,b:1 -migration x": {2, "-migrate-servers: b:1 is in -redis too, and sharded and partition would both use it"},

		"-gather -1s":           {2, "-gather is -1s, it must not be negative"},
		"-wrong":                {2, "flag provided but not defined"},
		"extra":                 {2, `unexpected argument "extra"`},
		"-addr 127.0.0.1:99999": {1, "listening on 127.0.0.1:99999"},
		"-addr 127.0.0.1:0 -adapter sharded -redis 127.0.0.1:1":   {1, "no Redis at 127.0.0.1:1"},
		"-addr 127.0.0.1:0 -adapter redis -redis no.invalid:6379": {1, "no Redis at no.invalid:6379"},
		"-addr 127.0.0.1:0 -adapter nats -nats 127.0.0.1:1":       {1, "no NATS at nats://127.0.0.1:1"},
		"-help": {0, "usage: chat"},
	} {
		var stderr bytes.Buffer
		assert.Equal(t, want.code, run(t.Context(), strings.Fields(args), &stderr), args)
		assert.Contains(t, stderr.String(), want.sentence, args)
	}
}

func TestShutdownSaysGoodbyeToEveryPage(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stderr := new(output)
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"-addr", "127.0.0.1:0"}, stderr) }()
	c := &chat{t: t, url: "ws://" + stderr.address(t)}
	clients := []*client{c.dial("room", "a"), c.dial("room", "b"), c.dial("other", "c")}
	clients[0].say("hello")
	cancel()
	for _, cl := range clients {
		status, reason := cl.closed()
		assert.Equal(t, websocket.StatusGoingAway, status)
		assert.Equal(t, "the server is shutting down", reason)
	}
	select {
	case got := <-code:
		assert.Zero(t, got)
	case <-time.After(patience):
		t.Fatal("the server did not stop")
	}
	assert.Contains(t, stderr.String(), "msg=stopped")
	_, err := net.Dial("tcp", strings.TrimPrefix(c.url, "ws://"))
	assert.Error(t, err)
}

// A chat is a server under test.
type chat struct {
	t      *testing.T
	hub    *fanout.Hub
	server *server
	gate   *gate
	url    string // ws://host:port
}

func start(t *testing.T, o *fanout.Options) *chat { return startOn(t, nil, o) }

func startOn(t *testing.T, a fanout.Adapter, o *fanout.Options) *chat {
	t.Helper()
	if o == nil {
		o = new(fanout.Options)
	}
	if o.Window == (fanout.Window{}) {
		o.Window = fanout.Window{Messages: 4096, Bytes: 8 << 20}
	}
	o.Logger = slog.New(slog.DiscardHandler)
	hub, err := fanout.New(a, o)
	require.NoError(t, err)
	c := &chat{t: t, hub: hub, server: newServer(hub, o.Logger)}
	web := httptest.NewUnstartedServer(c.server.routes())
	web.Config = webServer(web.Config.Handler, o.Logger)
	c.gate = newGate(web.Listener)
	web.Listener = c.gate
	web.Start()
	c.url = "ws://" + web.Listener.Addr().String()
	t.Cleanup(func() {
		c.gate.open()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c.server.drain()
		web.Close()
		assert.NoError(t, c.server.wait(ctx))
		assert.NoError(t, hub.Close(ctx))
	})
	return c
}

func (c *chat) get(path string) (status int, body string) {
	c.t.Helper()
	resp, err := http.Get("http" + strings.TrimPrefix(c.url, "ws") + path)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return resp.StatusCode, string(b)
}

func (c *chat) membersBecome(n int) {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return c.hub.Stats().Members == n }, patience, 5*time.Millisecond)
}

func (c *chat) socketURL(room, name string) string {
	return c.url + "/ws?" + url.Values{"room": {room}, "name": {name}}.Encode()
}

func (c *chat) dial(room, name string) *client {
	c.t.Helper()
	return c.dialURL(c.socketURL(room, name))
}

// resume dials as a page does that has seen the message at since.
func (c *chat) resume(room, name string, since any) *client {
	c.t.Helper()
	return c.dialURL(c.socketURL(room, name) + "&since=" + fmt.Sprint(since))
}

func (c *chat) dialURL(url string) *client {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, nil)
	require.NoError(c.t, err)
	ws.SetReadLimit(-1)
	c.t.Cleanup(func() { ws.CloseNow() })
	return &client{t: c.t, ws: ws}
}

func (c *chat) refused(room, name string) *http.Response {
	c.t.Helper()
	_, resp, err := websocket.Dial(c.t.Context(), c.socketURL(room, name), nil)
	require.Error(c.t, err)
	require.NotNil(c.t, resp)
	return resp
}

// A client is one page, without the browser.
type client struct {
	t  *testing.T
	ws *websocket.Conn
}

func (c *client) say(text string) {
	c.t.Helper()
	assert.NoError(c.t, c.ws.Write(c.t.Context(), websocket.MessageText, []byte(text)))
}

// next returns the next frame that is not about who is here.
func (c *client) next() map[string]any {
	c.t.Helper()
	for {
		if m := c.frame(); m["people"] == nil {
			return m
		}
	}
}

// frame returns the next frame.
func (c *client) frame() map[string]any {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	typ, data, err := c.ws.Read(ctx)
	require.NoError(c.t, err)
	require.Equal(c.t, websocket.MessageText, typ)
	var m map[string]any
	require.NoError(c.t, json.Unmarshal(data, &m), "%s", data)
	return m
}

// closed reads to the end and returns with what the server closed.
func (c *client) closed() (websocket.StatusCode, string) {
	c.t.Helper()
	var closed websocket.CloseError
	require.ErrorAs(c.t, c.ends(), &closed)
	return closed.Code, closed.Reason
}

// ends reads until the connection ends, and returns the error.
func (c *client) ends() (err error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for err == nil {
		_, _, err = c.ws.Read(ctx)
	}
	require.NoError(c.t, ctx.Err(), "it does not end")
	return err
}

// A gate is a listener whose connections count their writes, and can be closed:
// then writes wait, as they do when a page does not read.
type gate struct {
	net.Listener
	writes  atomic.Int64
	blocked atomic.Int64
	shred   atomic.Bool // writes go in small parts

	mu   sync.Mutex
	pass chan struct{} // closed while the gate is open
}

func newGate(ln net.Listener) *gate {
	g := &gate{Listener: ln, pass: make(chan struct{})}
	close(g.pass)
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.pass:
	default:
		close(g.pass)
	}
}

func (g *gate) awaitBlocked(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return g.blocked.Load() > 0 }, patience, time.Millisecond)
}

func (g *gate) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gated{Conn: conn, gate: g, closed: make(chan struct{})}, nil
}

type gated struct {
	net.Conn
	gate   *gate
	once   sync.Once
	closed chan struct{}
}

func (g *gated) Write(p []byte) (int, error) {
	g.gate.writes.Add(1)
	g.gate.mu.Lock()
	pass := g.gate.pass
	g.gate.mu.Unlock()
	if g.gate.shred.Load() {
		return shredded(g.Conn, p)
	}
	select {
	case <-pass:
		return g.Conn.Write(p)
	default:
	}
	g.gate.blocked.Add(1)
	defer g.gate.blocked.Add(-1)
	select {
	case <-pass:
	case <-g.closed:
		return 0, net.ErrClosed
	}
	return g.Conn.Write(p)
}

func (g *gated) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Conn.Close()
}

// A stub is an adapter with functions of the test.
type stub struct {
	receiver  fanout.Receiver
	publish   func(ctx context.Context, channel string, frame []byte) (int, error)
	subscribe func(ctx context.Context, channel string) error // nil: it succeeds
}

func (s *stub) Attach(r fanout.Receiver) error { s.receiver = r; return nil }
func (s *stub) Subscribe(ctx context.Context, channel string) error {
	if s.subscribe == nil {
		return nil
	}
	return s.subscribe(ctx, channel)
}
func (s *stub) Unsubscribe(context.Context, string) error { return nil }
func (s *stub) Close(context.Context) error               { return nil }
func (s *stub) Publish(ctx context.Context, channel string, frame []byte) (int, error) {
	return s.publish(ctx, channel, frame)
}

// An output is what a server writes to stderr.
type output struct{ logtest.Text }

var listening = regexp.MustCompile(`msg=listening addr=(\S+)`)

// address waits until the server listens and returns its address.
func (o *output) address(t *testing.T) string {
	t.Helper()
	var addr string
	require.Eventually(t, func() bool {
		if m := listening.FindStringSubmatch(o.String()); m != nil {
			addr = m[1]
		}
		return addr != ""
	}, patience, 5*time.Millisecond, "the server does not listen")
	return addr
}
