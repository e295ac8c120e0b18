package fanout_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// watched are options with presence in all rooms. Those of "kept" have a
// history.
func watched(o fanout.RoomOptions) *fanout.Options {
	o.Presence = true
	return &fanout.Options{Room: func(name string) fanout.RoomOptions {
		o := o
		if name == "kept" {
			o.Retain = fanout.Retention{Messages: 100}
		}
		return o
	}}
}

// A watcher is a member that keeps a list of who is in a room, by its changes.
type watcher struct {
	m  *fanout.Member
	mu sync.Mutex // guards all below

	people  map[string]string // info by user, or by member
	count   int
	large   bool
	lists   int
	notices []string
	begun   bool
	wrong   []string // what cannot be
}

func watchRoom(t testing.TB, m *fanout.Member) *watcher {
	w := &watcher{m: m}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for msg, err := range m.Messages(context.Background()) {
			if c, ok := msg.Presence(); ok && err == nil {
				w.apply(&c)
			}
		}
	}()
	t.Cleanup(func() { m.Close(); <-done })
	return w
}

func nameOf(p fanout.Person) string { return p.User + p.Member }

func (w *watcher) apply(c *fanout.PresenceChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	note := ""
	if c.Reset {
		w.people = make(map[string]string)
		w.lists++
		note = "list"
	} else if !w.begun {
		w.wrong = append(w.wrong, "a change before the first list")
	}
	w.begun, w.count, w.large = true, c.Count, c.Large
	for _, p := range c.Joined {
		if _, there := w.people[nameOf(p)]; there {
			w.wrong = append(w.wrong, "joined again: "+nameOf(p))
		}
		w.people[nameOf(p)] = string(p.Info)
		note += " +" + nameOf(p)
	}
	for _, p := range c.Updated {
		if _, there := w.people[nameOf(p)]; !there {
			w.wrong = append(w.wrong, "updated, not there: "+nameOf(p))
		}
		w.people[nameOf(p)] = string(p.Info)
		note += " =" + nameOf(p)
	}
	for _, p := range c.Left {
		if _, there := w.people[nameOf(p)]; !there {
			w.wrong = append(w.wrong, "left, not there: "+nameOf(p))
		}
		delete(w.people, nameOf(p))
		note += " -" + nameOf(p)
	}
	w.notices = append(w.notices, note)
}

func (w *watcher) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.people))
}

// take returns the notices since it was last called.
func (w *watcher) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.notices
	w.notices = nil
	return n
}

// enter connects a user's connection to a room.
func enter(t testing.TB, h *fanout.Hub, room, user, info string) *fanout.Member {
	t.Helper()
	m, err := h.Connect(&fanout.MemberOptions{User: user, Info: []byte(info)})
	require.NoError(t, err)
	require.NoError(t, h.Room(room).Join(within(t), m))
	return m
}

// presenceBubble runs a test in rooms with and without a history, with three
// hubs.
func presenceBubble(t *testing.T, o fanout.RoomOptions, test func(t *testing.T, f *fleet, room string)) {
	for _, room := range []string{"plain", "kept"} {
		t.Run(room, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newFleet(t, 3, true, watched(o)), room) })
		})
	}
}

func TestPresence(t *testing.T) {
	presenceBubble(t, fanout.RoomOptions{}, func(t *testing.T, f *fleet, room string) {
		a, b, c := f.hubs[0], f.hubs[1], f.hubs[2]
		t.Log("the first list has those who were there")
		ann := watchRoom(t, enter(t, a, room, "ann", "1"))
		synctest.Wait()
		require.Equal(t, []string{"list +ann"}, ann.take())
		bob := watchRoom(t, enter(t, b, room, "bob", "2"))
		synctest.Wait()
		require.Equal(t, []string{" +bob"}, ann.take())
		require.Equal(t, []string{"list +ann +bob"}, bob.take())
		t.Log("a member that comes later gets it, too, and the others hear of it")
		dan := enter(t, b, room, "dan", "")
		dans := watchRoom(t, dan)
		time.Sleep(time.Second)
		require.Equal(t, []string{"list +ann +bob", " +dan"}, dans.take())
		require.NoError(t, dan.Close())
		time.Sleep(6 * time.Second)
		require.Equal(t, []string{" +dan", " -dan"}, ann.take())
		bob.take()
		time.Sleep(time.Second)
		t.Log("a member without a user is a person, too")
		cat := enter(t, c, room, "", "3")
		synctest.Wait()
		require.Equal(t, []string{" +" + cat.ID()}, ann.take())
		require.Equal(t, map[string]string{"ann": "1", "bob": "2", cat.ID(): "3"}, ann.people)
		time.Sleep(time.Second)
		t.Log("new info")
		require.NoError(t, cat.SetInfo([]byte("4")))
		synctest.Wait()
		require.Equal(t, []string{" =" + cat.ID()}, bob.take()[1:])
		require.Equal(t, "4", bob.people[cat.ID()])
		time.Sleep(time.Second)
		t.Log("a second connection is no event, nor is the end of one of two")
		again := enter(t, c, room, "ann", "5")
		time.Sleep(time.Second)
		require.Equal(t, 4, func() int { n, _ := a.In(room).Count(within(t)); return n }())
		require.NoError(t, again.Close())
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{" =" + cat.ID()}, ann.take())
		t.Log("a member without a user goes at once, one with a user after the grace period")
		require.NoError(t, cat.Close())
		require.NoError(t, b.Room(room).Leave(within(t), bob.m))
		synctest.Wait()
		require.Equal(t, []string{" -" + cat.ID()}, ann.take())
		time.Sleep(4 * time.Second)
		require.Empty(t, ann.take())
		time.Sleep(time.Second + time.Millisecond)
		require.Equal(t, []string{" -bob"}, ann.take())
		t.Log("nobody hears anything when nobody comes or goes")
		frames := f.frames()
		time.Sleep(10 * time.Second)
		settled := frames()
		time.Sleep(time.Hour)
		require.Equal(t, settled, frames())
		require.Empty(t, ann.take())
		require.Empty(t, ann.wrong)
		require.Empty(t, bob.wrong)
	})
}

// frames has frames in rooms counted.
func (f *fleet) frames() func() int {
	var mu sync.Mutex
	n := 0
	f.bus.Intercept(func(_ context.Context, frame memory.Frame) memory.Fate {
		mu.Lock()
		defer mu.Unlock()
		if frame.Channel[:len("fanout:r:")] == "fanout:r:" {
			n++
		}
		return memory.Fate{}
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

var _ = assert.New
var _ = fmt.Sprint
