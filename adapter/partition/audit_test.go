package partition_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/internal/wire"
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

const auditChannel = "fanout:r:{room}"

var auditKeep = adapter.Retention{Messages: 100, Age: time.Hour}

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
		at, _, err := w.a.Append(w.t.Context(), auditChannel, adapter.Record{
			Frame: fmt.Append(nil, w.said), Messages: 1, Keep: auditKeep, Time: time.Now(),
		})
		require.NoError(w.t, err)
		w.at = append(w.at, at)
		time.Sleep(time.Second)
	}
}

func (w *restarts) check() {
	w.t.Helper()
	page, err := w.a.History(w.t.Context(), auditChannel, adapter.Query{Limit: 100, Keep: auditKeep, Time: time.Now()})
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

func TestAuditRestartOfAllHubs(t *testing.T) {
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

// A partition dies after a room has moved there, and is removed: the room goes
// on at a partition that has a stale copy.
func TestAuditDeadPartition(t *testing.T) {
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
		page, err := w.adapters[0].History(t.Context(), auditChannel, adapter.Query{Limit: 100, Keep: auditKeep, Time: time.Now()})
		require.NoError(t, err)
		t.Log(at, page.Head, page.Before, page.First, page.Frames)
		n := member(t, h[0], "bob")
		require.NoError(t, h[0].Room("room").Resume(t.Context(), n, at))
		require.Contains(t, next(t, n), "miss")
		require.Equal(t, "3", next(t, n))
	})
}

// A copy ends in fillers when the partition that it comes from goes.
func TestAuditPartialFiller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		w := &restarts{t: t, buses: make(map[string]*memory.Bus)}
		w.start([]string{"p0"})
		for range 40 {
			w.say() // only 100 are kept
		}
		n := 0
		w.part(name, false)
		delete(w.known, name)
		w.buses[name].Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
			if f.Channel == auditChannel {
				if n++; n > 1 {
					fate.Refuse, fate.Err = true, fmt.Errorf("full")
				}
			}
			return fate
		})
		w.change([]string{"p0", name})
		w.buses[name].Intercept(nil)
		w.buses["p0"].Cut()
		w.change([]string{name})
		page, err := w.a.History(t.Context(), auditChannel, adapter.Query{Limit: 100, Keep: auditKeep, Time: time.Now()})
		require.NoError(t, err)
		t.Log(page.Head, page.Before, len(page.Frames))
		require.NotZero(t, page.Head.Epoch)
		last := w.at[len(w.at)-1]
		w.say()
		require.True(t, last.Before(w.at[len(w.at)-1]), "%v %v", last, w.at[len(w.at)-1])
		page, err = w.a.History(t.Context(), auditChannel, adapter.Query{Limit: 100, Keep: auditKeep, Time: time.Now()})
		require.NoError(t, err)
		t.Log(page.Head, page.Before, len(page.Frames))
		for _, past := range page.Before {
			require.NotZero(t, past.Epoch)
		}
	})
}

// A frame may have been kept, and the next attempt fails for certain.
func TestAuditDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		w := &restarts{t: t, buses: make(map[string]*memory.Bus)}
		w.start([]string{"p0"})
		w.say()
		r := adapter.Record{Frame: []byte("6"), Messages: 1, Keep: auditKeep, Time: time.Now(), Publisher: "me", Stream: 1, Seq: 1}
		fate := memory.Fate{Err: fmt.Errorf("lost on the way back")}
		w.buses["p0"].Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if f.Channel != auditChannel {
				return memory.Fate{}
			}
			return fate
		})
		_, _, err := w.a.Append(t.Context(), auditChannel, r)
		require.Error(t, err)
		fate = memory.Fate{Refuse: true, Err: adapter.Unsent(fmt.Errorf("full"))}
		_, _, err = w.a.Append(t.Context(), auditChannel, r)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		w.buses["p0"].Intercept(nil)
		w.said++
		w.change([]string{"p0", name})
		_, n, err := w.a.Append(t.Context(), auditChannel, r)
		require.NoError(t, err)
		require.Equal(t, -1, n)
		w.check()
	})
}

// A copy that was given up has expired when the room comes again.
func TestAuditExpiredPartial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		w := &restarts{t: t, buses: make(map[string]*memory.Bus)}
		w.start([]string{"p0"})
		w.say()
		n := 0
		w.part(name, false)
		delete(w.known, name)
		w.buses[name].Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
			if f.Channel == auditChannel {
				if n++; n > 2 {
					fate.Refuse, fate.Err = true, fmt.Errorf("full")
				}
			}
			return fate
		})
		w.change([]string{"p0", name})
		w.buses[name].Intercept(nil)
		w.change([]string{"p0"}, name)
		time.Sleep(90 * time.Minute)
		w.say()
		w.change([]string{"p0", name})
		page, err := w.a.History(t.Context(), auditChannel, adapter.Query{Limit: 100, Keep: auditKeep, Time: time.Now()})
		require.NoError(t, err)
		t.Log(page.Head, page.Before, len(page.Frames))
		require.Len(t, page.Frames, 5)
	})
}

// A hub finds out where a room is, while the room moves away and returns.
func TestAuditSlowFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := newcomer("p0", "room")
		buses := map[string]*memory.Bus{"p0": memory.NewBus(), name: memory.NewBus()}
		slow := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: &lagging{Adapter: buses["p0"].NewAdapter()}})
		quick := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: buses["p0"].NewAdapter()})
		said := uint64(0)
		say := func(a *partition.Adapter) {
			said++
			at, _, err := a.Append(t.Context(), auditChannel, adapter.Record{Frame: fmt.Append(nil, said), Messages: 1, Keep: auditKeep, Time: time.Now()})
			require.NoError(t, err)
			require.Equal(t, said, at.Offset)
			time.Sleep(time.Second)
		}
		say(quick)
		read := make(chan error, 1)
		go func() {
			_, err := slow.History(t.Context(), auditChannel, adapter.Query{Limit: 100, Keep: auditKeep, Time: time.Now()})
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
		page, err := quick.History(t.Context(), auditChannel, adapter.Query{Limit: 100, Keep: auditKeep, Time: time.Now()})
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
	if channel == auditChannel && !l.read {
		l.read = true
		time.Sleep(15 * time.Second)
	}
	return page, err
}

// A strict adapter refuses, as that of Redis does, a frame that is sent for the
// first time and that the history has.
type strict struct{ *memory.Adapter }

func (s strict) Append(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
	at, n, err := s.Adapter.Append(ctx, channel, r)
	if err == nil && n == -1 && wire.IsFirst(r.Frame) {
		return at, 0, adapter.Unsent(fmt.Errorf("%w: %w", adapter.ErrBrokenHistory, adapter.ErrRefused))
	}
	return at, n, err
}

// A frame that may have been kept, by its first attempt, is recognised after
// its room has moved.
func TestAuditDoubtOfFirstAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, name := memory.NewBus(), newcomer("p0", "room")
		a := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: strict{bus.NewAdapter()}})
		frame := wire.AppendHeader(nil, &wire.Header{Hub: 1, Time: 1, Stream: 1, Seq: 1, Count: 1})
		frame = wire.AppendMessage(frame, &wire.Message{Data: []byte("x")})
		r := adapter.Record{Frame: frame, Messages: 1, Keep: auditKeep, Time: time.Now(), Publisher: "me", Stream: 1, Seq: 1}
		bus.Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
			if f.Channel == auditChannel {
				fate.Err = fmt.Errorf("lost on the way back")
			}
			return fate
		})
		_, _, err := a.Append(t.Context(), auditChannel, r)
		require.Error(t, err)
		bus.Intercept(nil)
		require.NoError(t, a.Change(t.Context(), []partition.Partition{{Name: "p0"}, {Name: name, Adapter: strict{memory.NewBus().NewAdapter()}}}))
		r.Frame = wire.Again(frame, true, 0)
		_, n, err := a.Append(t.Context(), auditChannel, r)
		require.NoError(t, err)
		require.Equal(t, -1, n)
		page, err := a.History(t.Context(), auditChannel, adapter.Query{Limit: 100, Keep: auditKeep, Time: time.Now()})
		require.NoError(t, err)
		require.Len(t, page.Frames, 1)
	})
}

// The new home of a room loses what it has. A hub that comes then finds what
// the old home has, and does not say that this is all.
func TestAuditStaleSource(t *testing.T) {
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
		page, err := w.a.History(t.Context(), auditChannel, adapter.Query{Since: w.at[2], Limit: 100, Keep: auditKeep, Time: time.Now()})
		require.NoError(t, err)
		t.Log(page.Head, page.Before, page.First, page.Frames)
		for _, past := range page.Before {
			require.False(t, past.Whole, "%v", past)
		}
		for i := range w.at[1:] {
			require.True(t, w.at[i].Before(w.at[i+1]))
		}
	})
}

// The link that makes an Append uncertain is still broken when the room moves.
// Another hub copies the history, and the frame is in it once.
func TestAuditDoubtWithBrokenLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, after, name := memory.NewBus(), memory.NewBus(), newcomer("p0", "room")
		link := bus.NewAdapter()
		cut := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: link})
		other := attached(t, new(sink), partition.Partition{Name: "p0", Adapter: bus.NewAdapter()})
		r := adapter.Record{Frame: []byte("x"), Messages: 1, Keep: auditKeep, Time: time.Now(), Publisher: "me", Stream: 1, Seq: 1}
		_, _, err := cut.Append(t.Context(), auditChannel, r)
		require.NoError(t, err)
		read := func(a *partition.Adapter) adapter.Page {
			page, err := a.History(t.Context(), auditChannel, adapter.Query{Limit: 100, Keep: auditKeep, Time: time.Now()})
			require.NoError(t, err)
			return page
		}
		read(other)
		link.CutInbound()
		r.Seq++
		r.Frame = []byte("y")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 2)
		_, _, err = link.Append(ctx, auditChannel, r) // as the adapter does before it is deaf
		require.Error(t, err)
		require.NotErrorIs(t, err, adapter.ErrUnsent)
		link.Heal()
		bus.Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
			if f.Channel == auditChannel && f.From == link {
				fate.Refuse, fate.Err = true, fmt.Errorf("nobody knows")
			}
			return fate
		})
		_, _, err = cut.Append(ctx, auditChannel, r)
		require.Error(t, err)
		for _, a := range []*partition.Adapter{cut, other} {
			go func() {
				done <- a.Change(ctx, []partition.Partition{{Name: "p0"}, {Name: name, Adapter: after.NewAdapter()}})
			}()
		}
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		at, n, err := cut.Append(ctx, auditChannel, r)
		require.NoError(t, err)
		require.Equal(t, -1, n)
		page := read(cut)
		require.Len(t, page.Frames, 2)
		require.Equal(t, at, page.Frames[1].At)
	})
}
