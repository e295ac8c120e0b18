package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
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

func TestWithoutAWindowEveryMessageGoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pumpInto(t, 0)
		p.say(0, "1")
		p.say(10*time.Millisecond, "2")
		p.say(20*time.Millisecond, "3")
		assert.Equal(t, []written{
			{0, []string{"1"}}, {10 * time.Millisecond, []string{"2"}}, {20 * time.Millisecond, []string{"3"}},
		}, p.writes())
	})
}

func TestWindowGathersWhatIsSaidInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pumpInto(t, 50*time.Millisecond)
		p.say(0, "first")
		p.say(10*time.Millisecond, "1")
		p.say(49*time.Millisecond, "2")
		p.say(60*time.Millisecond, "3")
		p.say(200*time.Millisecond, "after a pause")
		assert.Equal(t, []written{
			{0, []string{"first"}},
			{50 * time.Millisecond, []string{"1", "2"}},
			{100 * time.Millisecond, []string{"3"}},
			{200 * time.Millisecond, []string{"after a pause"}},
		}, p.writes())
	})
}

func TestWindowHoldsBackNoMoreThanABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pumpInto(t, 50*time.Millisecond)
		p.say(0, "first")
		const n = 1000
		for i := range n {
			p.say(10*time.Millisecond, fmt.Sprint(i))
		}
		heard := 0
		for _, w := range p.writes()[1:] {
			assert.Equal(t, 50*time.Millisecond, w.at, "no window between batches that are full")
			assert.LessOrEqual(t, len(w.texts), maxBatch)
			heard += len(w.texts)
		}
		assert.Equal(t, n, heard)
	})
}

func TestWindowEndsForAllTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := windows{length: 50 * time.Millisecond}
		early := w.current()
		time.Sleep(30 * time.Millisecond)
		late := w.current()
		time.Sleep(20*time.Millisecond - time.Nanosecond)
		synctest.Wait()
		select {
		case <-early:
			t.Error("it is over too early")
		default:
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		<-early
		<-late
		began := time.Now()
		<-w.current()
		assert.Equal(t, w.length, time.Since(began), "the next one is as long")
	})
}

func TestLongMessagesAreSeveralWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pumpInto(t, 50*time.Millisecond)
		p.say(0, "first")
		const n = minBatch - 1
		long := strings.Repeat("x", maxText)
		for range n {
			p.say(10*time.Millisecond, long)
		}
		heard := 0
		for _, w := range p.writes()[1:] {
			assert.LessOrEqual(t, len(w.texts)*maxText, maxWrite)
			heard += len(w.texts)
		}
		assert.Equal(t, n, heard)
	})
}

func TestWindowDelaysNoEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(*pump)
		want error
	}{
		"of the hub":    {func(p *pump) { p.hub.Close(context.Background()) }, fanout.ErrClosed},
		"of the socket": {func(p *pump) { p.cancel() }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pumpInto(t, time.Hour)
				p.say(0, "1")
				p.say(time.Minute, "2")
				tc.end(p)
				synctest.Wait()
				select {
				case err := <-p.ended:
					assert.ErrorIs(t, err, tc.want)
				default:
					t.Error("it waits for the window")
				}
			})
		})
	}
}

// Pings, frames for this page alone, and the close frame are sent while a
// message waits for its window.
func TestWindowIsForMessagesOnly(t *testing.T) {
	c := start(t, &fanout.Options{MaxMessage: 1000}) // refuses more
	c.server.windows.length, c.server.timing.ping = time.Hour, 5*time.Millisecond
	var pings atomic.Int64
	ws, _, err := websocket.Dial(t.Context(), c.socketURL("room", "page"), &websocket.DialOptions{
		OnPingReceived: func(context.Context, []byte) bool { pings.Add(1); return true },
	})
	require.NoError(t, err)
	defer ws.CloseNow()
	page := &client{t: t, ws: ws}
	page.say("at once")
	assert.Equal(t, "at once", page.next()["text"])
	page.say("waits")
	page.say(strings.Repeat("x", 1000)) // is read when the one before was published
	assert.Contains(t, page.next(), "error", "the message waits, this does not")
	seen := pings.Load()
	go func() {
		assert.Eventually(t, func() bool { return pings.Load() > seen+3 }, patience, time.Millisecond)
		c.server.drain()
	}()
	status, _ := page.closed()
	assert.Equal(t, websocket.StatusGoingAway, status)
}

func TestWindowIsAFlag(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stderr := new(output)
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"-addr", "127.0.0.1:0", "-gather", "1h"}, stderr) }()
	c := &chat{t: t, url: "ws://" + stderr.address(t)}
	page := c.dial("room", "page")
	assert.Contains(t, page.frame(), "people", "the first frame is written at once")
	newcomer := c.dial("room", "newcomer")
	assert.Contains(t, newcomer.frame(), "people")
	page.say("waits")
	page.say("\x00") // is read when the one before was published
	assert.Contains(t, page.next(), "error")
	cancel()
	assert.Equal(t, "waits", page.next()["text"], "what waits is written before the server stops")
	assert.Equal(t, "waits", newcomer.next()["text"])
	status, _ := page.closed()
	assert.Equal(t, websocket.StatusGoingAway, status)
	newcomer.closed()
	assert.Zero(t, <-code)
}

// A pump is a socket without a network that writes the messages of its room.
type pump struct {
	t      *testing.T
	hub    *fanout.Hub
	began  time.Time
	cancel context.CancelFunc
	ended  chan error // its error
	taken  chan []written
}

// A written is a write, and the messages in it.
type written struct {
	at    time.Duration
	texts []string
}

// pumpInto starts a pump with a gathering window. It is for synctest: times are
// exact.
func pumpInto(t *testing.T, window time.Duration) *pump {
	hub, err := fanout.New(nil, &fanout.Options{Window: fanout.Window{Messages: 4096}})
	require.NoError(t, err)
	member, err := hub.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, hub.Room("room").Join(t.Context(), member))
	ours, theirs := net.Pipe()
	p := &pump{t: t, hub: hub, began: time.Now(), ended: make(chan error, 1), taken: make(chan []written, 1)}
	s := newServer(hub, slog.New(slog.DiscardHandler))
	s.windows.length = window
	c := &socket{server: s, conn: &conn{Conn: ours, timeout: patience}, member: member, room: hub.Room("room")}
	ctx, cancel := context.WithCancel(t.Context())
	p.cancel = cancel
	go func() {
		p.ended <- c.copyBatches(ctx)
		ours.Close()
	}()
	go func() { p.taken <- p.take(theirs) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, hub.Close(context.Background()))
	})
	return p
}

// say publishes, at a time since the pump began.
func (p *pump) say(at time.Duration, text string) {
	p.t.Helper()
	time.Sleep(at - time.Since(p.began))
	require.NoError(p.t, p.hub.Room("room").Publish(p.t.Context(), newSaid("x", "room", []byte(text))))
}

// writes waits for the remaining messages, ends the pump, and returns what it
// has written.
func (p *pump) writes() []written {
	time.Sleep(time.Second)
	p.cancel()
	return <-p.taken
}

// take reads each write as one.
func (p *pump) take(conn net.Conn) (all []written) {
	for buf := make([]byte, 2*maxWrite); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return all
		}
		w := written{at: time.Since(p.began)}
		for r := bufio.NewReader(bytes.NewReader(buf[:n])); ; {
			frame, err := readFrame(r)
			if errors.Is(err, io.EOF) {
				break
			}
			var m said
			if err := errors.Join(err, json.Unmarshal(frame.payload, &m)); err != nil {
				p.t.Error(err)
				return all
			}
			w.texts = append(w.texts, m.Text)
		}
		all = append(all, w)
	}
}
