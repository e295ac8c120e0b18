package sharded_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// An openSlot is a slot whose move was begun and not ended.
type openSlot struct {
	t        *testing.T
	c        *redistest.Cluster
	slot     int
	from, to *redistest.Node
}

func openSlotOf(t *testing.T, c *redistest.Cluster, key string) *openSlot {
	o := &openSlot{t: t, c: c, slot: redistest.Slot(key)}
	o.from = c.Owner(o.slot)
	o.to = c.Primaries()[slices.IndexFunc(c.Primaries(), func(n *redistest.Node) bool { return n != o.from })]
	o.set(o.to, "IMPORTING", o.id(o.from))
	o.set(o.from, "MIGRATING", o.id(o.to))
	return o
}

func (o *openSlot) id(n *redistest.Node) string {
	id, err := n.Do(within(o.t), "CLUSTER", "MYID").ToString()
	require.NoError(o.t, err)
	return id
}

func (o *openSlot) set(n *redistest.Node, state ...string) {
	o.t.Helper()
	args := append([]string{"CLUSTER", "SETSLOT", fmt.Sprint(o.slot)}, state...)
	require.NoError(o.t, n.Do(within(o.t), args...).Error())
}

// move moves some of the keys, as the tool did before it was interrupted.
func (o *openSlot) move(keys ...string) {
	o.t.Helper()
	host, port, err := net.SplitHostPort(o.to.Addr())
	require.NoError(o.t, err)
	args := append([]string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}, keys...)
	answer, err := o.from.Do(within(o.t), args...).ToString()
	require.NoError(o.t, err)
	require.Equal(o.t, "OK", answer)
}

// finish moves the rest, which must not be in the way of anything.
func (o *openSlot) finish() {
	o.t.Helper()
	for {
		keys, err := o.from.Do(within(o.t), "CLUSTER", "GETKEYSINSLOT", fmt.Sprint(o.slot), "100").AsStrSlice()
		require.NoError(o.t, err)
		if len(keys) == 0 {
			break
		}
		o.move(keys...)
	}
	id := o.id(o.to)
	nodes := []*redistest.Node{o.to, o.from}
	for _, n := range o.c.Primaries() {
		if n != o.to && n != o.from {
			nodes = append(nodes, n)
		}
	}
	for _, n := range nodes {
		o.set(n, "NODE", id)
	}
}

// A slot whose move was interrupted stays open until somebody notices: its keys
// are here or there. Rooms with a history go on all the same, and when the move
// is ended nothing is in its way.
func TestHistoryInAnOpenSlot(t *testing.T) {
	t.Parallel()
	redistest.OnImages(t, func(t *testing.T, image string) {
		c := openSlotClusters(t, image)
		t.Run("functions", func(t *testing.T) {
			inOpenSlots(t, c, func() rueidis.Client { return c.Client(t) })
		})
		// As users that are refused functions, and INFO in scripts.
		for name, rights := range map[string][]string{"scripts": {"-fcall"}, "told": {"-fcall", "-info", "+info|server"}} {
			t.Run(name, func(t *testing.T) {
				for _, n := range c.Nodes() {
					set := append([]string{"ACL", "SETUSER", name, "on", ">secret", "~*", "&*", "+@all"}, rights...)
					require.NoError(t, n.Do(within(t), set...).Error())
				}
				inOpenSlots(t, c, func() rueidis.Client {
					return c.Client(t, func(o *rueidis.ClientOption) { o.Username, o.Password = name, "secret" })
				})
			})
		}
	})
}

func inOpenSlots(t *testing.T, c *redistest.Cluster, client func() rueidis.Client) {
	for name, test := range map[string]struct {
		before int // messages that were said before
		keys   func(o *openSlot, stream, note string)
	}{
		"a room that is there":      {before: 5},
		"a new room":                {},
		"a room that has moved":     {before: 5, keys: func(o *openSlot, stream, note string) { o.move(stream, note) }},
		"its stream has moved":      {before: 5, keys: func(o *openSlot, stream, note string) { o.move(stream) }},
		"a room that was idle":      {before: -5},
		"idle, and the note moved":  {before: -5, keys: func(o *openSlot, stream, note string) { o.move(note) }},
		"long messages in a moved":  {before: 3, keys: func(o *openSlot, stream, note string) { o.move(stream, note) }},
		"the functions are missing": {before: 5, keys: func(o *openSlot, stream, note string) { flushFunctions(o) }},
	} {
		t.Run(name, func(t *testing.T) {
			long := name == "long messages in a moved"
			text := func(n int) string {
				if long {
					return fmt.Sprintf("%d %05000d", n, n)
				}
				return fmt.Sprint(n)
			}
			a, b, p := keeping(t, client(), 100), keeping(t, client(), 100), keeping(t, client(), 100)
			room := "open " + t.Name()
			stream := "fanout:h:{" + room + "}"
			next := 1
			publish := func(h *fanout.Hub) {
				t.Helper()
				ctx, cancel := context.WithTimeout(within(t), 5*time.Second)
				defer cancel()
				require.NoError(t, h.Room(room).Publish(ctx, []byte(text(next))))
				next++
			}
			first := member(t, a)
			require.NoError(t, a.Room(room).Join(within(t), first))
			for next <= max(test.before, -test.before) {
				publish(p)
			}
			if test.before < 0 {
				expire(t, c.Owner(redistest.Slot(stream)), stream)
			}
			o := openSlotOf(t, c, stream)
			if test.keys != nil {
				test.keys(o, stream, stream+":at")
			}

			start := next
			publish(p) // which nobody tells of anything
			second := member(t, b)
			require.NoError(t, b.Room(room).Join(within(t), second))
			joined := next
			for range 3 {
				publish(a)
				publish(b)
				publish(p)
			}
			resumed := member(t, b)
			require.NoError(t, b.Room(room).Resume(within(t), resumed, fanout.Position{}))
			o.finish()
			for range 3 {
				publish(a)
				publish(b)
				publish(p)
			}
			expect := func(m *fanout.Member, from int, gap bool) {
				t.Helper()
				for n := from; n < next; n++ {
					msg, err := m.Receive(within(t))
					if gapError, ok := errors.AsType[*fanout.GapError](err); ok && gap && gapError.Missed == 0 {
						n-- // it is not known for sure that nothing is missing
						continue
					}
					require.NoError(t, err)
					require.Equal(t, text(n), string(msg.Data))
				}
			}
			if test.before < 0 {
				expect(resumed, start, false)
			} else {
				expect(resumed, 1, false)
			}
			expect(first, 1, true)
			expect(second, joined, true)
		})
	}
}

// expire makes a stream look as if its time was over.
func expire(t *testing.T, n *redistest.Node, stream string) {
	t.Helper()
	state, err := n.Do(within(t), "HGET", stream+":at", "s").ToString()
	require.NoError(t, err)
	f := strings.Fields(state)
	f[3] = fmt.Sprint(time.Now().Add(-time.Second).UnixMilli())
	require.NoError(t, n.Do(within(t), "HSET", stream+":at", "s", strings.Join(f, " ")).Error())
	require.NoError(t, n.Do(within(t), "DEL", stream).Error())
}

func flushFunctions(o *openSlot) {
	for _, n := range o.c.Primaries() {
		require.NoError(o.t, n.Do(within(o.t), "FUNCTION", "FLUSH").Error())
		require.NoError(o.t, n.Do(within(o.t), "SCRIPT", "FLUSH").Error())
	}
}

// Where the note has moved and the stream has not, nothing can be kept that
// would not be in the way of the rest. Publishing waits.
func TestHistoryInAnOpenSlotWaitsForTheStream(t *testing.T) {
	c := cluster(t)
	h := keeping(t, c.Client(t), 100)
	name := "waits for its stream"
	m := member(t, h)
	require.NoError(t, h.Room(name).Join(within(t), m))
	say(t, h.Room(name), 1, 3)
	stream := "fanout:h:{" + name + "}"
	o := openSlotOf(t, c, stream)
	o.move(stream + ":at")
	waitsForTheStream(t, h.Room(name))
	done := make(chan error, 1)
	go func() { done <- h.Room(name).Publish(within(t), []byte("4")) }()
	o.move(stream)
	require.NoError(t, <-done)
	o.finish()
	say(t, h.Room(name), 5, 6)
	got, _ := hear(t, m, 6)
	require.Equal(t, count(1, 6), got)
}

// waitsForTheStream checks that a publish waits as long as the note of a
// history is at another node than the stream. A deadline that ends while an
// attempt is under way says nothing.
func waitsForTheStream(t *testing.T, room *fanout.Room) {
	t.Helper()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		err := room.Publish(ctx, []byte("4"))
		require.Error(t, err)
		return errors.Is(err, fanout.ErrUnsent) && strings.Contains(err.Error(), "TRYAGAIN")
	}, 10*time.Second, time.Millisecond)
}

// After a failover the first call begins an epoch. If that is a reading, and
// the note moves before anything is published, the stream is still waited for:
// another one at the new owner would keep the old one from moving.
func TestHistoryInAnOpenSlotAfterAReading(t *testing.T) {
	c := cluster(t)
	for name, before := range map[string]func(n *redistest.Node, stream string){
		"of a failover": func(n *redistest.Node, _ string) {
			redistest.Must(t, c.Failover(within(t), c.ReplicasOf(n)[0]))
		},
		"of a history without its note": func(n *redistest.Node, stream string) {
			require.NoError(t, n.Do(within(t), "DEL", stream+":at").Error())
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := keeping(t, c.Client(t), 100)
			room := h.Room("read in an open slot " + name)
			stream := "fanout:h:{" + room.Name() + "}"
			say(t, room, 1, 3)
			before(c.Owner(redistest.Slot(stream)), stream)
			_, err := room.History(within(t), fanout.Position{}, 0)
			require.NoError(t, err)
			o := openSlotOf(t, c, stream)
			o.move(stream + ":at")
			waitsForTheStream(t, room)
			o.finish()
			say(t, room, 4, 4)
			m := member(t, h)
			require.NoError(t, room.Resume(within(t), m, fanout.Position{}))
			got, _ := hear(t, m, 4)
			require.Equal(t, count(1, 4), got)
		})
	}
}

// In an open slot the note follows the stream by several calls. A hub that
// loses the reply to one of them, or dies, loses nothing: the next call
// continues.
func TestHistoryInAnOpenSlotOfAHubThatStops(t *testing.T) {
	c := cluster(t)
	for stop, step := range map[string]int{"after it has the note": 1, "after parking it": 2, "after deleting it": 3, "and the slot is closed": 4} {
		t.Run(stop, func(t *testing.T) {
			h := keeping(t, c.Client(t), 100)
			a, err := newAdapter(c.Client(t))
			require.NoError(t, err)
			require.NoError(t, a.Attach(heedless{}))
			defer a.Close(within(t))
			room := h.Room("moves its note " + stop)
			channel, stream := "fanout:r:{"+room.Name()+"}", "fanout:h:{"+room.Name()+"}"
			say(t, room, 1, 3)
			frame := wire.AppendHeader(nil, &wire.Header{Hub: 99, Stream: 1, Seq: 1, Count: 1, Time: uint64(time.Now().UnixMilli())})
			frame = wire.AppendMessage(frame, &wire.Message{Data: []byte("4")})
			r := adapter.Record{Frame: frame, Messages: 1, Keep: anHour, Publisher: "another", Stream: 1, Seq: 1}
			_, _, err = a.(adapter.Historian).Append(within(t), channel, r)
			require.NoError(t, err)
			kept, err := room.History(within(t), fanout.Position{}, 0)
			require.NoError(t, err)
			require.Len(t, kept, 4)

			o := openSlotOf(t, c, stream)
			o.move(stream)
			o.bringNote(stream, step)
			if step == 4 {
				o.finish()
			}

			r.Frame = wire.Again(frame, true, 0)
			_, n, err := a.(adapter.Historian).Append(within(t), channel, r)
			require.NoError(t, err)
			require.Equal(t, -1, n, "it is known that the frame is kept")
			say(t, room, 5, 6)
			o.finish()
			say(t, room, 7, 8)
			all, err := room.History(within(t), fanout.Position{}, 0)
			require.NoError(t, err)
			var texts []string
			for _, m := range all {
				texts = append(texts, string(m.Data))
			}
			require.Equal(t, count(1, 8), texts)
			m := member(t, h)
			require.NoError(t, room.Resume(within(t), m, kept[1].Position))
			texts, missed, _ := drain(m)
			require.Equal(t, count(3, 8), texts)
			require.Zero(t, missed)
			exists, err := o.to.Do(within(t), "EXISTS", stream+":moved").AsInt64()
			require.NoError(t, err)
			require.Zero(t, exists)
		})
	}
}

// bringNote takes the first steps of a hub that brings the note of a history,
// whose stream has moved, to the new owner.
func (o *openSlot) bringNote(stream string, steps int) {
	o.t.Helper()
	read := func(key string, seed ...string) []string {
		return append([]string{
			"FCALL", "fanout_read_" + libraryDigest(o.t, o.from), "1", key,
			"0", "0", "0", "100", "3600000", "1", stream,
		}, seed...)
	}
	reply, err := o.from.Do(within(o.t), read(stream+":at")...).ToArray()
	require.NoError(o.t, err)
	require.Len(o.t, reply, 2)
	note, err := reply[1].AsStrSlice()
	require.NoError(o.t, err)
	require.NotEmpty(o.t, note)
	if steps >= 2 {
		replies := o.to.DoMulti(within(o.t), []string{"ASKING"}, read(stream+":moved", note...))
		require.NoError(o.t, replies[1].Error())
	}
	if steps >= 3 {
		require.NoError(o.t, o.from.Do(within(o.t), read(stream+":at", "parked", "")...).Error())
	}
}
