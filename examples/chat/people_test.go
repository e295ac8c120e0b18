package main

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout"
	membus "github.com/fanoutgo/fanout/adapter/memory"
)

// withPeople are the options of a chat whose pages are told who is here.
func withPeople() *fanout.Options { return &fanout.Options{Room: config{}.room()} }

// sees reads frames until the page shows these names, sorted.
func (c *client) sees(here map[string]bool, names ...string) {
	c.t.Helper()
	for {
		var now []string
		for n := range here {
			now = append(now, n)
		}
		if slices.Sort(now); slices.Equal(now, names) {
			return
		}
		p, ok := c.frame()["people"].(map[string]any)
		if !ok {
			continue
		}
		if p["all"] == true {
			clear(here)
		}
		for _, n := range namesIn(p["left"]) {
			delete(here, n)
		}
		for _, n := range namesIn(p["joined"]) {
			here[n] = true
		}
	}
}

func namesIn(list any) (names []string) {
	all, _ := list.([]any)
	for _, n := range all {
		names = append(names, n.(string))
	}
	return names
}

func (c *chat) kick(room, name, by string) int {
	c.t.Helper()
	q := url.Values{"room": {room}, "name": {name}, "by": {by}}
	resp, err := http.Post("http"+strings.TrimPrefix(c.url, "ws")+"/kick?"+q.Encode(), "", nil)
	require.NoError(c.t, err)
	resp.Body.Close()
	return resp.StatusCode
}

// Two processes of one chat.
func twoOf(t *testing.T) (a, b *chat) {
	bus := membus.NewBus()
	return startOn(t, bus.NewAdapter(), withPeople()), startOn(t, bus.NewAdapter(), withPeople())
}

func TestPagesShowWhoIsHereOnAllProcesses(t *testing.T) {
	one, two := twoOf(t)
	ann, bob := one.dial("방", "Ann"), two.dial("방", "민수")
	seenByAnn, seenByBob := map[string]bool{}, map[string]bool{}
	ann.sees(seenByAnn, "Ann", "민수")
	bob.sees(seenByBob, "Ann", "민수")
	one.dial("elsewhere", "Eve")
	again := two.dial("방", "Ann") // a second page of the same name
	third := two.dial("방", "Carl")
	ann.sees(seenByAnn, "Ann", "Carl", "민수")
	bob.sees(seenByBob, "Ann", "Carl", "민수")
	again.sees(map[string]bool{}, "Ann", "Carl", "민수")
	ann.say("hello")
	assert.Equal(t, "hello", third.next()["text"])
}

func TestSomebodyIsKickedFromAllProcesses(t *testing.T) {
	one, two := twoOf(t)
	ann, bob := one.dial("room", "Ann"), two.dial("room", "Bob")
	second := one.dial("room", "Bob")
	other := two.dial("elsewhere", "Bob")
	here := map[string]bool{}
	ann.sees(here, "Ann", "Bob")
	ann.say("before")
	require.Equal(t, http.StatusNoContent, one.kick("room", "Bob", "Ann"))
	for _, page := range []*client{bob, second} {
		assert.Equal(t, "before", page.next()["text"], "what was said before arrives")
		status, reason := page.closed()
		assert.Equal(t, statusKicked, int(status))
		assert.Equal(t, "removed by Ann", reason)
	}
	assert.Equal(t, http.StatusNotFound, one.kick("room", "Bob", "Ann"))
	other.say("still here")
	assert.Equal(t, "still here", other.next()["text"], "rooms are kicked from one by one")
	ann.sees(here, "Ann") // after the grace period
}

func TestKickIsRefused(t *testing.T) {
	c := start(t, withPeople())
	for query, status := range map[string]int{
		"room=r&name=n":                  http.StatusBadRequest,
		"name=n&by=b":                    http.StatusBadRequest,
		"room=r&by=b":                    http.StatusBadRequest,
		"room=r&name=n&by=%FF":           http.StatusBadRequest,
		"room=%FF&name=n&by=b":           http.StatusBadRequest,
		"room=r&name=n&by=b&since=wrong": http.StatusBadRequest,
		"room=r&name=n&by=b":             http.StatusNotFound,
	} {
		resp, err := http.Post("http"+strings.TrimPrefix(c.url, "ws")+"/kick?"+query, "", nil)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, status, resp.StatusCode, query)
	}
	status, _ := c.get("/kick?room=r&name=n&by=b")
	assert.Equal(t, http.StatusMethodNotAllowed, status)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http"+strings.TrimPrefix(c.url, "ws")+"/kick?room=r&name=n&by=b", nil)
	require.NoError(t, err)
	req.Header.Set("Origin", "https://evil.example")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, http.StatusForbidden, resp.StatusCode)
}
