package fanout_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/wire"
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
		require.Equal(t, "list +ann", strings.Join(ann.take(), ""), "with the member itself, or without it before that")
		bob := watchRoom(t, enter(t, b, room, "bob", "2"))
		synctest.Wait()
		require.Equal(t, []string{" +bob"}, ann.take())
		require.Equal(t, "list +ann +bob", strings.Join(bob.take(), ""))
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
		frames, _ := f.traffic()
		time.Sleep(10 * time.Second)
		settled := frames()
		time.Sleep(5 * time.Minute)
		require.Equal(t, settled, frames())
		require.Empty(t, ann.take())
		require.Empty(t, ann.wrong)
		require.Empty(t, bob.wrong)
	})
}

// traffic has frames in rooms counted, and their bytes.
func (f *fleet) traffic() (frames, bytes func() int) {
	var n, size atomic.Int64
	f.bus.Intercept(func(_ context.Context, frame memory.Frame) memory.Fate {
		if strings.HasPrefix(frame.Channel, "fanout:r:") {
			n.Add(1)
			size.Add(int64(len(frame.Data)))
		}
		return memory.Fate{}
	})
	return func() int { return int(n.Load()) }, func() int { return int(size.Load()) }
}

// require checks that a watcher knows who is there, and that its changes
// fitted.
func (w *watcher) require(t testing.TB, names ...string) {
	t.Helper()
	require.Equal(t, slices.Sorted(slices.Values(names)), w.names())
	w.mu.Lock()
	wrong := w.wrong
	w.mu.Unlock()
	require.Empty(t, wrong)
}

func TestPresenceGrace(t *testing.T) {
	presenceBubble(t, fanout.RoomOptions{Grace: 3 * time.Second}, func(t *testing.T, f *fleet, room string) {
		w := watchRoom(t, enter(t, f.hubs[0], room, "watcher", ""))
		ann := enter(t, f.hubs[1], room, "ann", "")
		time.Sleep(time.Second)
		w.take()
		for name, next := range map[string]*fanout.Hub{"the same hub": f.hubs[1], "another hub": f.hubs[2]} {
			t.Log("a person that comes back to " + name + " within the grace period is no event")
			for range 3 {
				require.NoError(t, ann.Close())
				time.Sleep(2 * time.Second)
				ann = enter(t, next, room, "ann", "")
				time.Sleep(10 * time.Second)
				require.Empty(t, w.take())
			}
		}
		t.Log("nor is a member that leaves and joins again")
		m := enter(t, f.hubs[1], room, "bob", "")
		time.Sleep(time.Second)
		w.take()
		for range 3 {
			require.NoError(t, f.hubs[1].Room(room).Leave(within(t), m))
			time.Sleep(2 * time.Second)
			require.NoError(t, f.hubs[1].Room(room).Join(within(t), m))
		}
		time.Sleep(10 * time.Second)
		require.Empty(t, w.take())
		w.require(t, "ann", "bob", "watcher")
	})
	t.Run("negative", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, 3, true, watched(fanout.RoomOptions{Grace: -1}))
			w := watchRoom(t, enter(t, f.hubs[0], "x", "watcher", ""))
			ann := enter(t, f.hubs[1], "x", "ann", "")
			time.Sleep(time.Second)
			w.take()
			require.NoError(t, ann.Close())
			synctest.Wait()
			require.Equal(t, []string{" -ann"}, w.take())
		})
	})
}

func TestPresenceOfManyAtOnce(t *testing.T) {
	presenceBubble(t, fanout.RoomOptions{}, func(t *testing.T, f *fleet, room string) {
		w := watchRoom(t, enter(t, f.hubs[0], room, "watcher", ""))
		time.Sleep(time.Second)
		w.take()
		want := []string{"watcher"}
		var members []*fanout.Member
		for i := range 300 {
			name := fmt.Sprintf("user %03d", i)
			want = append(want, name)
			members = append(members, enter(t, f.hubs[i%3], room, name, ""))
		}
		last := watchRoom(t, members[299])
		time.Sleep(time.Second)
		w.require(t, want...)
		last.require(t, want...)
		require.LessOrEqual(t, len(w.take()), 6, "300 who come at once are a handful of notices")
		for _, m := range members[:299] {
			require.NoError(t, m.Close())
		}
		time.Sleep(6 * time.Second)
		w.require(t, "watcher", "user 299")
		require.LessOrEqual(t, len(w.take()), 6)
	})
}

func TestPresenceOfHubsThatEnd(t *testing.T) {
	crowd := func(t *testing.T, f *fleet, room string) (w *watcher) {
		w = watchRoom(t, enter(t, f.hubs[0], room, "watcher", ""))
		for i := range 100 {
			enter(t, f.hubs[2], room, fmt.Sprint(i), "")
		}
		enter(t, f.hubs[1], room, "7", "") // one of them is on another hub as well
		time.Sleep(10 * time.Second)
		require.Len(t, w.names(), 101)
		w.take()
		return w
	}
	t.Run("killed", func(t *testing.T) {
		presenceBubble(t, fanout.RoomOptions{}, func(t *testing.T, f *fleet, room string) {
			w := crowd(t, f, room)
			f.kill(2)
			time.Sleep(4 * time.Second)
			w.require(t, "7", "watcher")
			require.Len(t, w.take(), 1, "all go in one step")
			t.Log("it was only cut off")
			time.Sleep(30 * time.Second)
			f.nodes[2].Heal()
			time.Sleep(10 * time.Second)
			require.Len(t, w.names(), 101)
			require.Len(t, w.take(), 1)
			w.require(t, w.names()...)
		})
	})
	t.Run("closed", func(t *testing.T) {
		presenceBubble(t, fanout.RoomOptions{}, func(t *testing.T, f *fleet, room string) {
			w := crowd(t, f, room)
			require.NoError(t, f.hubs[2].Close(within(t)))
			time.Sleep(4 * time.Second)
			require.Empty(t, w.take(), "its people have the grace period to come back")
			back := enter(t, f.hubs[1], room, "11", "")
			time.Sleep(2 * time.Second)
			w.require(t, "11", "7", "watcher")
			require.Len(t, w.take(), 1)
			_ = back
		})
	})
	t.Run("drained", func(t *testing.T) {
		presenceBubble(t, fanout.RoomOptions{}, func(t *testing.T, f *fleet, room string) {
			w := crowd(t, f, room)
			drain, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, f.hubs[2].Drain(drain), context.DeadlineExceeded, "nobody receives")
			require.NoError(t, f.hubs[2].Close(within(t)))
			enter(t, f.hubs[1], room, "11", "")
			time.Sleep(6 * time.Second)
			w.require(t, "11", "7", "watcher")
			require.Len(t, w.take(), 1)
		})
	})
	t.Run("paused for a second", func(t *testing.T) {
		presenceBubble(t, fanout.RoomOptions{}, func(t *testing.T, f *fleet, room string) {
			w := crowd(t, f, room)
			for range 20 {
				f.pause.begin(f.nodes[2], f.hubs[2], time.Second)
				time.Sleep(3 * time.Second)
				require.Empty(t, w.take())
			}
			require.Len(t, w.names(), 101)
		})
	})
}

func TestPresenceAfterAGap(t *testing.T) {
	presenceBubble(t, fanout.RoomOptions{Window: fanout.Window{Messages: 10}}, func(t *testing.T, f *fleet, room string) {
		a := f.hubs[0]
		slow := enter(t, a, room, "slow", "")
		time.Sleep(time.Second)
		receiveList := func(want ...string) {
			t.Helper()
			w := &watcher{}
			for !w.begun {
				msg, err := slow.Receive(within(t))
				require.NoError(t, err)
				c, ok := msg.Presence()
				require.True(t, ok)
				require.True(t, c.Reset)
				require.True(t, msg.Position.IsZero())
				require.Equal(t, room, msg.Room)
				w.apply(&c)
			}
			w.require(t, want...)
		}
		for w := (&watcher{}); len(w.names()) == 0; { // the first list may be older than the announcement of the member
			msg, err := slow.Receive(within(t))
			require.NoError(t, err)
			c, ok := msg.Presence()
			require.True(t, ok)
			w.apply(&c)
		}
		t.Log("a member that falls out of the window gets a list, and changes are not missed messages")
		want := []string{"slow"}
		for i := range 30 {
			enter(t, f.hubs[i%3], room, fmt.Sprint(i), "")
			want = append(want, fmt.Sprint(i))
			time.Sleep(time.Second)
		}
		receiveList(want...)
		buf := make([]fanout.Message, 10)
		n, err := slow.TryReceiveBatch(buf)
		require.NoError(t, err)
		require.Zero(t, n, "changes that are in the list do not come")
		publish(t, a.Room(room), 1, 30)
		enter(t, f.hubs[1], room, "late", "")
		time.Sleep(time.Second)
		if room == "plain" {
			_, err = slow.Receive(within(t))
			var gap *fanout.GapError
			require.ErrorAs(t, err, &gap)
			require.Equal(t, 21, gap.Missed)
			receiveList(append(want, "late")...)
			require.Len(t, receive(t, slow, 9), 9)
		} else {
			require.Len(t, receive(t, slow, 30), 30)
			receiveList(append(want, "late")...)
		}
		require.NoError(t, a.Room(room).Publish(within(t), []byte("end")))
		require.Equal(t, []string{"end"}, receive(t, slow, 1))
	})
}

func TestPresenceOfOneThatResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, true, watched(fanout.RoomOptions{}))
		a := f.hubs[0]
		enter(t, f.hubs[1], "kept", "bob", "")
		publish(t, a.Room("kept"), 1, 3)
		time.Sleep(time.Second) // a first list may lack those who have just come
		m, err := a.Connect(nil)
		require.NoError(t, err)
		require.NoError(t, a.Room("kept").Resume(within(t), m, fanout.Position{}))
		require.Equal(t, []string{"1", "2", "3"}, receive(t, m, 3))
		msg, err := m.Receive(within(t))
		require.NoError(t, err)
		c, ok := msg.Presence()
		require.True(t, ok)
		require.True(t, c.Reset)
		require.True(t, slices.ContainsFunc(c.Joined, func(p fanout.Person) bool { return p.User == "bob" }))
		past, err := a.Room("kept").History(within(t), fanout.Position{}, 0)
		require.NoError(t, err)
		require.Len(t, past, 3)
	})
}

func TestPresenceOfLargeRooms(t *testing.T) {
	presenceBubble(t, fanout.RoomOptions{PresenceList: 100, Grace: -1}, func(t *testing.T, f *fleet, room string) {
		w := watchRoom(t, enter(t, f.hubs[0], room, "watcher", ""))
		var members []*fanout.Member
		for i := range 300 {
			members = append(members, enter(t, f.hubs[i%3], room, fmt.Sprint(i), ""))
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.True(t, w.large)
		require.Equal(t, 301, w.count)
		require.LessOrEqual(t, len(w.names()), 16)
		require.NotEmpty(t, w.names())
		for _, m := range members[50:] {
			require.NoError(t, m.Close())
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.False(t, w.large)
		require.Equal(t, 51, w.count)
		require.Len(t, w.names(), 51)
	})
}

func TestPresenceOfARoomThatIsLeftAndJoinedAgain(t *testing.T) {
	presenceBubble(t, fanout.RoomOptions{}, func(t *testing.T, f *fleet, room string) {
		enter(t, f.hubs[0], room, "ann", "")
		for range 3 {
			m := enter(t, f.hubs[1], room, "bob", "")
			w := watchRoom(t, m)
			time.Sleep(time.Second)
			w.require(t, "ann", "bob")
			require.NoError(t, m.Close())
			time.Sleep(time.Minute) // it is no longer subscribed, and forgotten
		}
	})
}

func TestPresenceOptions(t *testing.T) {
	for _, o := range []fanout.RoomOptions{{PresenceList: -1}, {PresenceList: 16385}} {
		h := newHub(t, nil, watched(o))
		require.ErrorIs(t, h.Room("x").Join(within(t), connect(t, h)), fanout.ErrInvalidOption)
	}
	t.Run("a message of a user is no change", func(t *testing.T) {
		h := newHub(t, nil, watched(fanout.RoomOptions{}))
		m := connect(t, h, "x")
		var msg fanout.Message
		receive := func() (c fanout.PresenceChange, ok bool) {
			var err error
			msg, err = m.Receive(within(t))
			require.NoError(t, err)
			return msg.Presence()
		}
		var c fanout.PresenceChange
		for len(c.Joined) == 0 { // the list may lack the member itself: then it follows
			var ok bool
			c, ok = receive()
			require.True(t, ok)
		}
		require.Equal(t, m.ID(), c.Joined[0].Member, "a hub alone has presence, too")
		require.NoError(t, h.Room("x").Publish(within(t), msg.Data))
		_, ok := receive()
		require.False(t, ok)
	})
}

// A hub that misses an announcement, and is not told, notices by the next one,
// or when the last one is repeated.
func TestPresenceThatIsMissed(t *testing.T) {
	presenceBubble(t, fanout.RoomOptions{}, func(t *testing.T, f *fleet, room string) {
		w := watchRoom(t, enter(t, f.hubs[0], room, "watcher", ""))
		enter(t, f.hubs[1], room, "ann", "")
		time.Sleep(10 * time.Second)
		for i, wait := range []time.Duration{6 * time.Second, time.Second} {
			f.bus.Intercept(func(_ context.Context, frame memory.Frame) memory.Fate {
				if frame.Channel == "fanout:r:{"+room+"}" {
					return memory.Fate{Miss: f.nodes[:1]}
				}
				return memory.Fate{}
			})
			enter(t, f.hubs[1], room, fmt.Sprint("missed ", i), "")
			time.Sleep(time.Millisecond)
			require.NotContains(t, w.names(), fmt.Sprint("missed ", i))
			f.bus.Intercept(nil)
			if i == 1 {
				enter(t, f.hubs[1], room, "next", "")
			}
			time.Sleep(wait)
			require.Contains(t, w.names(), fmt.Sprint("missed ", i))
		}
		w.require(t, "ann", "missed 0", "missed 1", "next", "watcher")
	})
}

// The figures are in docs/scaling.md.
func TestPresenceFrames(t *testing.T) {
	for _, test := range []struct{ hubs, each int }{{3, 2000}, {10, 2000}, {30, 2000}, {1, 10_000}, {3, 10_000}} {
		t.Run(fmt.Sprintf("%d hubs, %d changes a second", test.hubs, test.each), func(t *testing.T) {
			hubs, each := test.hubs, test.each
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, hubs, true, watched(fanout.RoomOptions{Grace: -1}))
				w := watchRoom(t, enter(t, f.hubs[0], "x", "watcher", ""))
				members := make([]*fanout.Member, 300)
				for i := range members {
					members[i] = enter(t, f.hubs[i%hubs], "x", fmt.Sprint(i), "")
				}
				time.Sleep(20 * time.Second)
				w.take()
				frames, bytes := f.traffic()
				seconds := 10_000 / each
				for round := range seconds * 100 {
					for k := range each / 200 { // a member leaves, and another one comes
						i := rand.IntN(len(members))
						require.NoError(t, members[i].Close())
						members[i] = enter(t, f.hubs[i%hubs], "x", fmt.Sprint(round, " ", k), "")
					}
					time.Sleep(10 * time.Millisecond)
				}
				notices := len(w.take())
				n, b := frames(), bytes()
				t.Logf("%d hubs, %d changes a second: %.1f notices a second, %.1f frames a second from each hub, %.1f bytes a change",
					hubs, each, float64(notices)/float64(seconds), float64(n)/float64(seconds*hubs), float64(b)/float64(seconds*each))
				require.Less(t, notices, 20*seconds)
				time.Sleep(10 * time.Second)
				require.Len(t, w.names(), 301)
				t.Log("a room costs nothing when nobody comes or goes")
				n = frames()
				time.Sleep(time.Minute)
				require.Equal(t, n, frames())
			})
		})
	}
}

// A hub of a release that knows nothing of presence answers that it does not
// understand, and nobody waits for it.
func TestPresenceBesideAnotherRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2, true, watched(fanout.RoomOptions{}))
		old := newEarlierHub(t, f.bus, "fanout:r:{x}", "fanout:i:{000000000000beef}")
		began := time.Now()
		w := watchRoom(t, enter(t, f.hubs[0], "x", "ann", ""))
		enter(t, f.hubs[1], "x", "bob", "")
		synctest.Wait()
		require.Zero(t, time.Since(began))
		require.NotZero(t, old.asked.Load())
		time.Sleep(time.Second)
		w.require(t, "ann", "bob")
	})
}

// An earlierHub answers questions about presence as a release does that does
// not know them, and nothing else.
type earlierHub struct {
	node  *memory.Adapter
	asked atomic.Int32
}

func newEarlierHub(t *testing.T, bus *memory.Bus, channels ...string) *earlierHub {
	h := &earlierHub{node: bus.NewAdapter()}
	require.NoError(t, h.node.Attach(h))
	for _, c := range channels {
		require.NoError(t, h.node.Subscribe(within(t), c))
	}
	t.Cleanup(func() { require.NoError(t, h.node.Close(context.Background())) })
	return h
}

func (h *earlierHub) Receive(_ string, frame []byte) {
	from, payload, err := wire.DecodeControl(frame)
	if err != nil {
		return
	}
	p, _ := control.Decode(payload)
	q, ok := p.(*control.Question)
	if !ok || q.Op != control.OpPresence {
		return
	}
	h.asked.Add(1)
	a := control.Answer{ID: q.ID, Attempt: q.Attempt, Status: control.StatusNotUnderstood, Covers: []uint64{q.Which}}
	answer := wire.AppendControl(nil, 0xbeef, uint64(time.Now().UnixMilli()), a.Append(nil))
	go func() {
		_, _ = h.node.Publish(context.Background(), fmt.Sprintf("fanout:i:{%016x}", from), answer)
	}()
}

func (h *earlierHub) Interrupted(string) {}
func (h *earlierHub) Restored(string)    {}
