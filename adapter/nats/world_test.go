package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/fanoutgo/fanout/internal/tcpproxy"
	"github.com/stretchr/testify/require"
)

// A world is a hub at each server, each with a member that is in all rooms and
// writes down what it gets, and with a publisher that goes on through every
// fault. Rooms whose names begin with "kept" have a history.
type world struct {
	t       *testing.T
	hubs    []*fanout.Hub
	proxies []*tcpproxy.Proxy
	rooms   []string

	stop       chan struct{}
	publishers sync.WaitGroup
	readers    sync.WaitGroup

	mu    sync.Mutex // guards all below
	said  map[string]*tally
	heard []map[string]*notes // by hub, then by room
}

// A tally counts the outcomes of publishing to a room.
type tally struct{ accepted, unsent, unclear int }

// Notes are what a member got of a room.
type notes struct {
	messages []string
	missed   int
	unknown  int // gaps of unknown size
	ended    map[string]bool
}

// pace is the pause of a publisher between two messages.
func pace() time.Duration {
	if everything() {
		return 5 * time.Millisecond
	}
	return 10 * time.Millisecond
}

func newWorld(t *testing.T, f *fleet, hubs int, rooms []string) *world {
	w := &world{t: t, rooms: rooms, stop: make(chan struct{}), said: make(map[string]*tally)}
	for _, room := range rooms {
		w.said[room] = new(tally)
	}
	for i := range hubs {
		p := newProxy(t, f.addr(i%len(f.options)))
		w.proxies = append(w.proxies, p)
		w.hubs = append(w.hubs, newHub(t, newAdapter(t, p.Addr(), nats.Options{})))
		w.heard = append(w.heard, make(map[string]*notes))
		for _, room := range rooms {
			w.heard[i][room] = &notes{ended: make(map[string]bool)}
		}
	}
	for i, h := range w.hubs {
		m, err := h.Connect(nil)
		require.NoError(t, err)
		for _, room := range rooms {
			require.NoError(t, h.Room(room).Join(within(t), m))
		}
		w.readers.Go(func() { w.read(i, m) })
	}
	for i := range w.hubs {
		for _, room := range rooms {
			w.publishers.Go(func() { w.publish(i, room) })
		}
	}
	w.resumes()
	return w
}

func newHub(t testing.TB, a fanout.Adapter) *fanout.Hub {
	h, err := fanout.New(a, &fanout.Options{
		Window:         fanout.Window{Messages: 1 << 20, Bytes: 1 << 30},
		PublishTimeout: 20 * time.Second,
		Room: func(room string) fanout.RoomOptions {
			if strings.HasPrefix(room, "kept") {
				return fanout.RoomOptions{Retain: fanout.Retention{Messages: 100_000}}
			}
			return fanout.RoomOptions{}
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// publish says numbers in a room until it is stopped, then the end.
func (w *world) publish(hub int, room string) {
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			for !w.say(hub, room, fmt.Sprintf("%d.end", hub)) {
			}
			return
		case <-time.After(pace()):
			w.say(hub, room, fmt.Sprintf("%d.%d", hub, n))
		}
	}
}

func (w *world) say(hub int, room, text string) bool {
	err := w.hubs[hub].Room(room).Publish(context.Background(), []byte(text))
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.said[room]
	switch {
	case err == nil:
		t.accepted++
	case errors.Is(err, fanout.ErrUnsent):
		t.unsent++
	default:
		t.unclear++
	}
	return err == nil
}

// read writes down what a member gets until it has heard, or has been told that
// it missed, everything.
func (w *world) read(hub int, m *fanout.Member) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	left := len(w.rooms) * len(w.hubs)
	for msg, err := range m.Messages(ctx) {
		w.mu.Lock()
		if gap := new(fanout.GapError); errors.As(err, &gap) {
			if r := w.heard[hub][gap.Room]; r != nil {
				r.missed += gap.Missed
				if gap.Unknown {
					r.unknown++
				}
			}
			w.mu.Unlock()
			continue
		}
		if err != nil {
			w.mu.Unlock()
			w.t.Errorf("hub %d still waits for %d ends: %v", hub, left, err)
			return
		}
		r := w.heard[hub][msg.Room]
		r.messages = append(r.messages, string(msg.Data))
		if who, ended := bytes.CutSuffix(msg.Data, []byte(".end")); ended && !r.ended[string(who)] {
			r.ended[string(who)] = true
			left--
		}
		w.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

// resumes waits until everybody hears everybody in every room, from now on, and
// all links are healthy.
func (w *world) resumes() {
	w.t.Helper()
	from := make(map[*notes]int)
	w.mu.Lock()
	for _, rooms := range w.heard {
		for _, r := range rooms {
			from[r] = len(r.messages)
		}
	}
	w.mu.Unlock()
	w.until("everybody hears everybody", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for r, since := range from {
			heard := make(map[string]bool)
			for _, m := range r.messages[since:] {
				who, _, _ := strings.Cut(m, ".")
				heard[who] = true
			}
			if len(heard) < len(w.hubs) {
				return false
			}
		}
		return true
	})
	w.until("all links are healthy", func() bool {
		return !slices.ContainsFunc(w.hubs, func(h *fanout.Hub) bool { return h.Health(w.t.Context()) != nil })
	})
}

func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	require.Eventually(w.t, f, time.Minute, 5*time.Millisecond, what)
}

// verdict stops everything and checks that nothing was lost in silence.
func (w *world) verdict() {
	w.t.Helper()
	close(w.stop)
	w.publishers.Wait()
	w.readers.Wait()
	var total tally
	var received, missed, unknown int
	for _, room := range w.rooms {
		t := w.said[room]
		total.accepted += t.accepted
		total.unsent += t.unsent
		total.unclear += t.unclear
		for hub, rooms := range w.heard {
			r := rooms[room]
			w.check(hub, room, r, t)
			received, missed, unknown = received+len(r.messages), missed+r.missed, unknown+r.unknown
		}
		if strings.HasPrefix(room, "kept") {
			w.checkOrder(room)
		}
	}
	w.t.Logf("published %d (unsent %d, unclear %d); by %d hubs: received %d, reported missed %d, gaps of unknown size %d",
		total.accepted, total.unsent, total.unclear, len(w.heard), received, missed, unknown)
}

// check holds what a member got of a room against what was said there.
func (w *world) check(hub int, room string, r *notes, t *tally) {
	w.t.Helper()
	seen, last := make(map[string]bool), make(map[string]int)
	for _, m := range r.messages {
		who, text, _ := strings.Cut(m, ".")
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil {
			continue // an end
		}
		if seen[m] {
			w.t.Errorf("hub %d, room %s: %s came twice", hub, room, m)
		}
		seen[m] = true
		if before, ok := last[who]; ok && n < before {
			w.t.Errorf("hub %d, room %s: %s came after %d", hub, room, m, before)
		}
		last[who] = n
	}
	// What is unclear was received, or counted as missed, or never sent.
	if n := len(r.messages) + r.missed; n < t.accepted || n > t.accepted+t.unclear {
		w.t.Errorf("hub %d, room %s: received %d and missed %d, published %d and perhaps %d", hub, room, len(r.messages), r.missed, t.accepted, t.unclear)
	}
}

// checkOrder sees to it that what two members got of a room, both of them, came
// in the same order.
func (w *world) checkOrder(room string) {
	w.t.Helper()
	first := w.heard[0][room].messages
	for hub := 1; hub < len(w.heard); hub++ {
		other := w.heard[hub][room].messages
		require.Equal(w.t, common(first, other), common(other, first), "order of room %s for hubs 0 and %d", room, hub)
	}
}

// common returns those of a that are in b, in the order of a.
func common(a, b []string) (list []string) {
	in := make(map[string]bool, len(b))
	for _, m := range b {
		in[m] = true
	}
	for _, m := range a {
		if in[m] {
			list = append(list, m)
		}
	}
	return list
}
