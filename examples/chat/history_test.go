package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout"
)

// withHistory are the options of -history.
func withHistory() *fanout.Options {
	return &fanout.Options{Room: config{history: true}.room()}
}

func TestHistoryIsAFlag(t *testing.T) {
	assert.Equal(t, fanout.RoomOptions{Presence: true}, config{}.room()("room"))
	c, err := parseFlags([]string{"-history"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, fanout.RoomOptions{Presence: true, Retain: fanout.Retention{Messages: 200, Age: 24 * time.Hour}}, c.room()("room"))
}

func TestPageThatComesBackGetsWhatWasSaidMeanwhile(t *testing.T) {
	c := start(t, withHistory())
	a, b := c.dial("방", "a"), c.dial("방", "b")
	say := func(text string) map[string]any {
		t.Helper()
		a.say(text)
		m := a.next()
		require.Equal(t, text, m["text"])
		return m
	}
	say("both are here")
	seen := b.next()
	b.ws.CloseNow()
	c.membersBecome(1)
	missed := []map[string]any{say("one is away"), say("<b>&</b> \u2028\"}"), say("")}

	b = c.resume("방", "b", seen["pos"])
	for _, want := range missed {
		assert.Equal(t, want, b.next(), "from the history as it was live, position and time of saying included")
	}
	assert.Equal(t, say("both are here again"), b.next())

	newcomer := c.resume("방", "c", "v1-0-0")
	assert.Equal(t, seen, newcomer.next(), "all from the beginning")
	for _, want := range missed {
		assert.Equal(t, want, newcomer.next())
	}
	assert.Equal(t, "both are here again", newcomer.next()["text"])

	plain := c.dial("방", "d")
	say("who asks for nothing that was said gets none of it")
	assert.Equal(t, "who asks for nothing that was said gets none of it", plain.next()["text"])
}

// One page sends without a pause while others lose their connections
// repeatedly.
func TestNothingIsShownTwiceOrMissed(t *testing.T) {
	c := start(t, withHistory())
	const n = 150 // fewer than are kept, so that however slow a page is nothing is missing
	speaker := c.dial("room", "speaker")
	var speaking sync.WaitGroup
	speaking.Go(func() {
		for i := range n {
			speaker.say(fmt.Sprint(i))
		}
	})
	since := []any{"v1-0-0", "v1-0-0", "v1-0-0"}
	for seen := 0; seen < n; seen += 5 {
		for i := range since {
			page := c.resume("room", fmt.Sprint(i), since[i])
			for j := range 5 {
				m := page.next()
				require.Equal(t, fmt.Sprint(seen+j), m["text"])
				since[i] = m["pos"]
			}
			page.ws.CloseNow()
		}
	}
	speaking.Wait()
}

func TestGapStandsBeforeWhatIsKept(t *testing.T) {
	c := start(t, withHistory())
	a := c.dial("room", "a")
	const n = 250
	var first map[string]any
	for i := range n {
		a.say(fmt.Sprint(i))
		if m := a.next(); i == 0 {
			first = m
		}
	}
	back := c.resume("room", "back", first["pos"])
	assert.Equal(t, map[string]any{"gap": 49.0, "unknown": false}, back.next())
	newcomer := c.resume("room", "newcomer", "v1-0-0")
	for i := n - 200; i < n; i++ {
		assert.Equal(t, fmt.Sprint(i), back.next()["text"])
		assert.Equal(t, fmt.Sprint(i), newcomer.next()["text"], "all that is kept, without a gap")
	}
}

func TestSinceOfAnotherRoomIsRefused(t *testing.T) {
	c := start(t, withHistory())
	a, b := c.dial("room", "a"), c.dial("other", "b")
	a.say("x")
	b.say("y")
	here, there := a.next()["pos"].(string), b.next()["pos"].(string)
	epoch, err := fanout.ParsePosition(here)
	require.NoError(t, err)
	ahead := fanout.Position{Epoch: epoch.Epoch, Offset: epoch.Offset + 1}
	for since, sentence := range map[string]string{
		there:          "position of another room",
		ahead.String(): "invalid position",
	} {
		_, resp, err := websocket.Dial(t.Context(), c.socketURL("room", "n")+"&since="+since, nil)
		require.Error(t, err, since)
		body, _ := io.ReadAll(resp.Body)
		assert.Equal(t, http.StatusBadRequest, resp.StatusCode, since)
		assert.Contains(t, string(body), sentence)
		// The page learns the reason from a plain request to the same address.
		status, _ := c.get("/ws?room=room&name=n&since=" + since)
		assert.Equal(t, http.StatusBadRequest, status)
	}
	status, _ := c.get("/ws?room=room&name=n&since=" + here)
	assert.Equal(t, http.StatusUpgradeRequired, status, "a good position lacks but the WebSocket")
	c.membersBecome(2)
}

func TestWithoutHistorySinceIsIgnored(t *testing.T) {
	c := start(t, nil)
	a := c.dial("room", "a")
	a.say("before")
	assert.NotContains(t, a.next(), "pos")
	var pages []*client
	for _, since := range []string{"v1-0-0", "v1-7-1", "v1-18446744073709551615-18446744073709551615"} {
		pages = append(pages, c.resume("room", "b", since))
	}
	a.say("after")
	for _, p := range pages {
		m := p.next()
		assert.Equal(t, "after", m["text"])
		assert.NotContains(t, m, "pos")
	}
}

func TestPositionIsInTheFrameAndUnforgeable(t *testing.T) {
	at := fanout.Position{Epoch: 1<<64 - 1, Offset: 1<<64 - 1}
	for data, want := range map[string]string{
		`{"from":"a","text":"b"}`:              `{"from":"a","text":"b","pos":"v1-18446744073709551615-18446744073709551615"}`,
		"{\"from\":\"a\",\"text\":\"}\"} \r\n": `{"from":"a","text":"}","pos":"v1-18446744073709551615-18446744073709551615"}`,
		`{"from":"a","text":"b","pos":"9-9"}`:  `{"from":"","text":"{\"from\":\"a\",\"text\":\"b\",\"pos\":\"9-9\"}","room":"r","stranger":true,"pos":"v1-18446744073709551615-18446744073709551615"}`,
		`hello}`:                               `{"from":"","text":"hello}","room":"r","stranger":true,"pos":"v1-18446744073709551615-18446744073709551615"}`,
	} {
		data := []byte(data)
		before := string(data)
		doc := documentOf(&fanout.Message{Room: "r", Sender: "hub", Data: data[:len(data):cap(data)], Position: at})
		assert.Equal(t, want, string(doc))
		assert.Equal(t, before, string(data), "the document is everybody's")
		assert.True(t, json.Valid(doc))
	}

	// Published by a hub that is no chat: the message has the room's position,
	// not the one that it claims.
	c := start(t, withHistory())
	page := c.dial("room", "page")
	require.NoError(t, c.hub.Room("room").Publish(t.Context(), []byte(`{"from":"a","text":"b","pos":"9-9"}`)))
	m := page.next()
	assert.Equal(t, true, m["stranger"])
	page.say(`","pos":"9-9`)
	next := page.next()
	assert.Equal(t, `","pos":"9-9`, next["text"])
	p, err := fanout.ParsePosition(m["pos"].(string))
	require.NoError(t, err)
	p.Offset++
	assert.Equal(t, p.String(), next["pos"])
}

// The same bytes in two rooms are two messages.
func TestOneDocumentInTwoRoomsHasTwoPositions(t *testing.T) {
	f := newFrames()
	doc := newSaid("a", "r", []byte("b"))
	for offset := range uint64(3) {
		m := fanout.Message{Room: "r", Sender: "hub", Data: doc, Position: fanout.Position{Epoch: offset, Offset: offset}}
		assert.Equal(t, textFrame(withPosition(doc, m.Position)), f.of(&m, nil).bytes)
	}
}
