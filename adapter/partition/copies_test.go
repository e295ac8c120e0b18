package partition_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/stretchr/testify/require"
)

// restarts is some backends that outlive the hubs that use them.
type restarts struct {
	t     *testing.T
	buses map[string]*memory.Bus
	a     *partition.Adapter
	known map[string]bool // partitions that the adapter has
	said  int
	seq   int
	at    []adapter.Position
}

const movedChannel = "fanout:r:{room}"

var movedKeep = adapter.Retention{Messages: 100, Age: time.Hour}

func (w *restarts) part(name string, leaving bool) partition.Partition {
	if w.buses[name] == nil {
		w.buses[name] = memory.NewBus()
	}
	p := partition.Partition{Name: name, Leaving: leaving}
	if !w.known[name] {
		p.Adapter, w.known[name] = w.buses[name].NewAdapter(), true
	}
	return p
}

func (w *restarts) parts(names []string, leaving ...string) (list []partition.Partition) {
	for _, name := range names {
		list = append(list, w.part(name, false))
	}
	for _, name := range leaving {
		list = append(list, w.part(name, true))
	}
	return list
}

func (w *restarts) start(names []string, leaving ...string) {
	w.known = make(map[string]bool)
	a, err := partition.New(w.parts(names, leaving...), quiet)
	require.NoError(w.t, err)
	require.NoError(w.t, a.Attach(new(sink)))
	w.a, w.seq = a, 0
	w.t.Cleanup(func() { require.NoError(w.t, a.Close(context.Background())) })
}

func (w *restarts) stop() { require.NoError(w.t, w.a.Close(context.Background())) }

func (w *restarts) change(names []string, leaving ...string) {
	require.NoError(w.t, w.a.Change(w.t.Context(), w.parts(names, leaving...)))
}

func (w *restarts) say() {
	for range 5 {
		w.said++
		at, _, err := w.a.Append(w.t.Context(), movedChannel, adapter.Record{
			Frame: fmt.Append(nil, w.said), Messages: 1, Keep: movedKeep, Time: time.Now(),
		})
		require.NoError(w.t, err)
		w.at = append(w.at, at)
		time.Sleep(time.Second)
	}
}

func (w *restarts) check() {
	w.t.Helper()
	page, err := w.a.History(w.t.Context(), movedChannel, adapter.Query{Limit: 100, Keep: movedKeep, Time: time.Now()})
	require.NoError(w.t, err)
	var got []string
	for _, f := range page.Frames {
		got = append(got, fmt.Sprint(f.At.Offset, "=", string(f.Frame)))
	}
	w.t.Log(page.Head, page.Before, got)
	w.t.Log(w.at)
	require.Len(w.t, page.Frames, w.said)
	for i, f := range page.Frames {
		require.Equal(w.t, fmt.Sprint(i+1), string(f.Frame))
	}
	for i := range w.at[1:] {
		require.True(w.t, w.at[i].Before(w.at[i+1]))
	}
}

func TestRestartOfAllHubs(t *testing.T) {
	name := newcomer("p0", "room")
	one, two := []string{"p0"}, []string{"p0", name}
	for title, f := range map[string]func(w *restarts){
		"moved, returned, restarted, moved": func(w *restarts) {
			w.start(one)
			w.say()
			w.change(two)
			w.say()
			w.change(one, name)
			w.say()
			w.stop()
			w.start(one, name)
			w.say()
			w.change(two)
			w.say()
			w.check()
			w.stop()
		},
		"moved, restarted, returned": func(w *restarts) {
			w.start(one)
			w.say()
			w.change(two)
			w.say()
			w.stop()
			w.start(two)
			w.say()
			w.change(one, name)
			w.say()
			w.check()
			w.stop()
		},
		"moved, returned unused, restarted": func(w *restarts) {
			w.start(one)
			w.say()
			w.change(two)
			w.say()
			w.stop()
			w.start(two) // does not use the room
			w.change(one, name)
			w.stop()
			w.start(one, name)
			w.say()
			w.check()
			w.stop()
		},
		"moved, returned unused, restarted, moved": func(w *restarts) {
			w.start(one)
			w.say()
			w.change(two)
			w.say()
			w.stop()
			w.start(two)
			w.change(one, name)
			w.stop()
			w.start(one, name)
			w.say()
			w.change(two)
			w.say()
			w.change(one, name)
			w.say()
			w.stop()
			w.start(one, name)
			w.say()
			w.change(two)
			w.say()
			w.check()
			w.stop()
		},
		"restarted after a move without use": func(w *restarts) {
			w.start(one)
			w.say()
			w.change(two)
			w.say()
			w.change(one, name)
			w.say()
			w.stop()
			w.start(one, name) // without use
			w.change(two)
			w.stop()
			w.start(two)
			w.say()
			w.check()
			w.stop()
		},
		"moved, returned unused, restarted, only read": func(w *restarts) {
			w.start(one)
			w.say()
			w.change(two)
			w.say()
			w.stop()
			w.start(two) // does not use the room
			w.change(one, name)
			w.stop()
			w.start(one, name)
			w.check()
			w.stop()
		},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(&restarts{t: t, buses: make(map[string]*memory.Bus)}) })
		})
	}
}

// full makes a partition that is new take a number of the room's frames, and
// refuse the next ones.
func (w *restarts) full(name string, after int) {
	w.part(name, false)
	delete(w.known, name)
	n := 0
	w.buses[name].Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
		if f.Channel == movedChannel {
			if n++; n > after {
				fate.Refuse, fate.Err = true, errors.New("full")
			}
		}
		return fate
	})
}

// A partition dies after a room has moved there, and is removed: the room goes
// on at a partition that has a stale copy.
func TestDeadPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		w := newWorld("p0", name)
		h := []*fanout.Hub{hubOn(t, w.add(t, quiet, "p0")), hubOn(t, w.add(t, quiet, "p0"))}
		m := member(t, h[0], "ann")
		require.NoError(t, h[0].Room("room").Join(t.Context(), m))
		say := func(text string) {
			require.NoError(t, h[1].Room("room").Publish(t.Context(), []byte(text)))
		}
		say("1")
		require.Equal(t, "1", next(t, m))
		require.NoError(t, w.change(t.Context(), "p0", name))
		say("2")
		msg, err := m.Receive(t.Context())
		require.NoError(t, err)
		at := msg.Position
		w.buses[name].Cut()
		require.NoError(t, w.change(t.Context(), "p0"))
		say("3")
		say("4")
		time.Sleep(5 * time.Second)
		say("5")
		require.Contains(t, next(t, m), "miss")
		require.Equal(t, "3", next(t, m))
		require.Equal(t, "4", next(t, m))
		msg, err = m.Receive(t.Context())
		require.NoError(t, err)
		require.Equal(t, "5", string(msg.Data))
		require.True(t, at.Before(msg.Position), "%v %v", at, msg.Position)
		n := member(t, h[0], "bob")
		require.NoError(t, h[0].Room("room").Resume(t.Context(), n, at))
		require.Contains(t, next(t, n), "miss")
		require.Equal(t, "3", next(t, n))
	})
}

// A copy ends in fillers when the partition that it comes from goes.
func TestCopyThatEndsInFillers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		w := &restarts{t: t, buses: make(map[string]*memory.Bus)}
		w.start([]string{"p0"})
		for range 40 {
			w.say() // only 100 are kept
		}
		w.full(name, 1)
		w.change([]string{"p0", name})
		w.buses[name].Intercept(nil)
		w.buses["p0"].Cut()
		w.change([]string{name})
		page, err := w.a.History(t.Context(), movedChannel, adapter.Query{Limit: 100, Keep: movedKeep, Time: time.Now()})
		require.NoError(t, err)
		require.NotZero(t, page.Head.Epoch)
		last := w.at[len(w.at)-1]
		w.say()
		require.True(t, last.Before(w.at[len(w.at)-1]), "%v %v", last, w.at[len(w.at)-1])
		page, err = w.a.History(t.Context(), movedChannel, adapter.Query{Limit: 100, Keep: movedKeep, Time: time.Now()})
		require.NoError(t, err)
		for _, past := range page.Before {
			require.NotZero(t, past.Epoch)
		}
	})
}

// A copy that was given up has expired when the room comes again.
func TestExpiredCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		w := &restarts{t: t, buses: make(map[string]*memory.Bus)}
		w.start([]string{"p0"})
		w.say()
		w.full(name, 2)
		w.change([]string{"p0", name})
		w.buses[name].Intercept(nil)
		w.change([]string{"p0"}, name)
		time.Sleep(90 * time.Minute)
		w.say()
		w.change([]string{"p0", name})
		page, err := w.a.History(t.Context(), movedChannel, adapter.Query{Limit: 100, Keep: movedKeep, Time: time.Now()})
		require.NoError(t, err)
		require.Len(t, page.Frames, 5)
	})
}

// A hub finds out where a room is, while the room moves away and returns.
func TestRoomReturnsWhileItIsLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		buses := map[string]*memory.Bus{"p0": memory.NewBus(), name: memory.NewBus()}
		slow := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: &lagging{Adapter: buses["p0"].NewAdapter()}})
		quick := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: buses["p0"].NewAdapter()})
		said := uint64(0)
		say := func(a *partition.Adapter) {
			said++
			at, _, err := a.Append(t.Context(), movedChannel, adapter.Record{Frame: fmt.Append(nil, said), Messages: 1, Keep: movedKeep, Time: time.Now()})
			require.NoError(t, err)
			require.Equal(t, said, at.Offset)
			time.Sleep(time.Second)
		}
		say(quick)
		read := make(chan error, 1)
		go func() {
			_, err := slow.History(t.Context(), movedChannel, adapter.Query{Limit: 100, Keep: movedKeep, Time: time.Now()})
			read <- err
		}()
		change := func(set func(bus func(string) adapter.Adapter) []partition.Partition) {
			done := make(chan error, 2)
			for _, a := range []*partition.Adapter{slow, quick} {
				parts := set(func(name string) adapter.Adapter { return buses[name].NewAdapter() })
				go func() { done <- a.Change(t.Context(), parts) }()
			}
			require.NoError(t, <-done)
			require.NoError(t, <-done)
		}
		change(func(bus func(string) adapter.Adapter) []partition.Partition {
			return []partition.Partition{{Name: "p0"}, {Name: name, Adapter: bus(name)}}
		})
		say(quick)
		change(func(bus func(string) adapter.Adapter) []partition.Partition {
			return []partition.Partition{{Name: "p0"}, {Name: name, Leaving: true}}
		})
		require.NoError(t, <-read)
		say(slow)
		say(quick)
		page, err := quick.History(t.Context(), movedChannel, adapter.Query{Limit: 100, Keep: movedKeep, Time: time.Now()})
		require.NoError(t, err)
		require.Len(t, page.Frames, int(said))
	})
}

// A lagging adapter takes its time for the first reading of a history.
type lagging struct {
	*memory.Adapter
	read bool
}

func (l *lagging) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	page, err := l.Adapter.History(ctx, channel, q)
	if channel == movedChannel && !l.read {
		l.read = true
		time.Sleep(15 * time.Second)
	}
	return page, err
}

// The new home of a room loses what it has. A hub that comes then finds what
// the old home has, and does not say that this is all.
func TestStaleSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		two := []string{"p0", name}
		w := &restarts{t: t, buses: make(map[string]*memory.Bus)}
		w.start([]string{"p0"})
		w.say()
		w.change(two)
		w.say()
		old := w.a
		w.start(two) // learns of the set from the other hub
		w.buses[name].Flush()
		require.NoError(t, old.Close(context.Background()))
		w.say()
		page, err := w.a.History(t.Context(), movedChannel, adapter.Query{Since: w.at[2], Limit: 100, Keep: movedKeep, Time: time.Now()})
		require.NoError(t, err)
		for _, past := range page.Before {
			require.False(t, past.Whole, "%v", past)
		}
		for i := range w.at[1:] {
			require.True(t, w.at[i].Before(w.at[i+1]))
		}
	})
}
