package sharded_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// A damage is what another program did to the keys of a history of five
// messages, and which calls report it.
type damage struct {
	name                   string
	commands               [][]string
	publish, join, history bool // return ErrBrokenHistory
}

func damages(stream, note, hub, epoch, numbers string) []damage {
	future := fmt.Sprint(time.Now().Add(48 * time.Hour).UnixMilli())
	now := fmt.Sprint(time.Now().UnixMilli())
	set := func(field, value string) [][]string { return [][]string{{"HSET", note, field, value}} }
	state := func(s string) [][]string { return set("s", "v1 "+s) }
	entry := func(id string, fields ...string) [][]string {
		return [][]string{{"DEL", stream}, append([]string{"XADD", stream, id}, fields...), {"PEXPIRE", stream, "3600000"}}
	}
	const r = "0123456789abcdef0123"
	return []damage{
		{"the note is a string", [][]string{{"SET", note, "x"}}, true, true, true},
		{"the stream is a list", [][]string{{"DEL", stream}, {"RPUSH", stream, "x"}}, true, false, true},
		{"no state", [][]string{{"HDEL", note, "s"}}, true, true, true},
		{"no offset", [][]string{{"HDEL", note, "o"}}, true, true, true},
		{"another state", set("s", "x"), true, true, true},
		{"no version", set("s", now+" 0 0 "+r), true, true, true},
		{"a later format", set("s", "v2 "+now), true, true, true},
		{"a state that goes on", state(now + " 0 0 " + r + " x"), true, true, true},
		{"an epoch in the far future", state(future + " 0 0 " + r), true, true, true},
		{"an epoch without end", state(strings.Repeat("9", 400) + " 0 0 " + r), true, true, true},
		{"a base beyond the offset", state(now + " 6 0 " + r), true, true, true},
		{"an offset that is none", set("o", "5x"), true, true, true},
		{"a negative offset", set("o", "-5"), true, true, true},
		{"half an offset", set("o", "5.5"), true, true, true},
		{"an offset that is not a number", set("o", "nan"), true, true, true},
		{"an offset beyond 2^53", set("o", "9223372036854775800"), true, true, true},
		{"past epochs that are none", set("c", "x"), false, true, true},
		{"past epochs that go on", set("c", "1:1:1,x"), false, true, true},
		{"past epochs in another order", set("c", "2:1:1,1:1:1,"), false, true, true},
		{"a past epoch beyond the head", set("c", "1:7:1,"), false, true, true},
		{"a publisher that has come further", set("p:"+hub, numbers+" 1000000 1"), true, false, false},
		{"an entry with another field", entry(epoch+"-5", "x", "frame"), false, false, true},
		{"an entry of a later format", entry(epoch+"-5", "v2 "+now, "frame"), false, false, true},
		{"an entry with two fields", entry(epoch+"-5", now+" 1", "frame", "x", "y"), false, false, true},
		{"an entry of no messages", entry(epoch+"-5", now+" 0", "frame"), false, false, true},
		{"an entry with more messages than it can have", entry(epoch+"-5", now+" 6", "frame"), false, false, true},
		{"an entry beyond the head", entry(epoch+"-5000", now+" 1", "frame"), true, false, true},
		{"an entry of another kind of ID", entry("*", now+" 1", "frame"), true, false, true},
	}
}

// isBroken holds an error against whether it is to say that the history is
// broken.
func isBroken(t *testing.T, what string, broken bool, err error) {
	t.Helper()
	if gap := new(fanout.GapError); errors.As(err, &gap) {
		err = nil // History says that something is missing
	}
	if broken {
		require.ErrorIs(t, err, fanout.ErrBrokenHistory, what)
	} else {
		require.NoError(t, err, what)
	}
}

// Keys of a history with contents that the library cannot have written are
// ErrBrokenHistory at once, and the room works again when the keys are gone.
func TestBrokenHistory(t *testing.T) {
	onClusters(t, func(t *testing.T, c *redistest.Cluster) {
		h, publisher := keeping(t, c.Client(t), 100), keeping(t, c.Client(t), 100)
		for i, d := range damages("", "", "", "", "") {
			t.Run(d.name, func(t *testing.T) {
				name := "broken " + t.Name()
				stream, note := "fanout:h:{"+name+"}", "fanout:h:{"+name+"}:at"
				present := member(t, h)
				require.NoError(t, h.Room(name).Join(within(t), present))
				say(t, publisher.Room(name), 1, 5)
				hear(t, present, 5)
				n := c.Owner(redistest.Slot(stream))
				state, err := n.Do(within(t), "HMGET", note, "s", "p:"+publisher.ID()).AsStrSlice()
				require.NoError(t, err)
				epoch := strings.Fields(state[0])[1]
				numbers, _, _ := strings.Cut(state[1], " ")
				for _, command := range damages(stream, note, publisher.ID(), epoch, numbers)[i].commands {
					require.NoError(t, n.Do(within(t), command...).Error())
				}

				began, other := time.Now(), keeping(t, c.Client(t), 100)
				isBroken(t, "Publish", d.publish, publisher.Room(name).Publish(within(t), []byte("6")))
				isBroken(t, "Join", d.join, other.Room(name).Join(within(t), member(t, other)))
				_, err = other.Room(name).History(within(t), fanout.Position{}, 10)
				isBroken(t, "History", d.history, err)
				isBroken(t, "Resume", d.history, other.Room(name).Resume(within(t), member(t, other), fanout.Position{}))
				require.Less(t, time.Since(began), 20*time.Second, "it does not wait for the contexts to end")

				require.NoError(t, n.Do(within(t), "DEL", stream, note).Error())
				joined := member(t, other)
				require.NoError(t, other.Room(name).Join(within(t), joined))
				require.NoError(t, publisher.Room(name).Publish(within(t), []byte("healed")))
				hearThrough(t, present, "healed")
				hearThrough(t, joined, "healed")
			})
		}
	})
}

// hearThrough receives until it has a message, whatever comes before it.
func hearThrough(t *testing.T, m *fanout.Member, text string) (gaps int) {
	t.Helper()
	for {
		msg, err := m.Receive(within(t))
		if gap := new(fanout.GapError); errors.As(err, &gap) {
			gaps++
			continue
		}
		require.NoError(t, err)
		if string(msg.Data) == text {
			return gaps
		}
	}
}

// Members that are in the room when its history cannot be read are told of a
// gap, and go on.
func TestBrokenHistoryIsAGap(t *testing.T) {
	c := cluster(t)
	h, publisher := keeping(t, c.Client(t), 100), keeping(t, c.Client(t), 100)
	name := "a broken history is a gap"
	stream := "fanout:h:{" + name + "}"
	m := member(t, h)
	require.NoError(t, h.Room(name).Join(within(t), m))
	say(t, publisher.Room(name), 1, 5)
	hear(t, m, 5)
	n := c.Owner(redistest.Slot(stream))
	chain, err := n.Do(within(t), "HGET", stream+":at", "c").ToString()
	require.NoError(t, err)
	require.NoError(t, n.Do(within(t), "HSET", stream+":at", "c", "x").Error())
	_, err = n.KillClients(within(t), "pubsub") // so that it is read
	require.NoError(t, err)
	_, err = m.Receive(within(t))
	require.Equal(t, &fanout.GapError{Room: name, Unknown: true}, err)
	say(t, publisher.Room(name), 6, 6)
	hearThrough(t, m, "6")
	require.NoError(t, n.Do(within(t), "HSET", stream+":at", "c", chain).Error())
	again := member(t, h)
	require.NoError(t, h.Room(name).Resume(within(t), again, fanout.Position{}))
	got, _ := hear(t, again, 6)
	require.Equal(t, count(1, 6), got)
}

// An entry that somebody has deleted is counted. (Of those before it a Resume
// that has to read may report some as well.)
func TestHistoryWithAHole(t *testing.T) {
	c := cluster(t)
	h := keeping(t, c.Client(t), 100)
	for name, hole := range map[string][2]int{"in the middle": {3, 5}, "at the end": {8, 8}} {
		t.Run(name, func(t *testing.T) {
			room := "a hole " + name
			stream := "fanout:h:{" + room + "}"
			say(t, h.Room(room), 1, 8)
			all, err := h.Room(room).History(within(t), fanout.Position{}, 0)
			require.NoError(t, err)
			n := c.Owner(redistest.Slot(stream))
			ids, err := n.Do(within(t), "XRANGE", stream, "-", "+").AsXRange()
			require.NoError(t, err)
			for i := hole[0]; i <= hole[1]; i++ {
				require.NoError(t, n.Do(within(t), "XDEL", stream, ids[i-1].ID).Error())
			}
			m := member(t, h)
			require.NoError(t, h.Room(room).Resume(within(t), m, all[0].Position))
			say(t, h.Room(room), 9, 9)
			received, missed := 0, 0
			for received+missed < 8 {
				_, err := m.Receive(within(t))
				if gap := new(fanout.GapError); errors.As(err, &gap) {
					missed += gap.Missed
					continue
				}
				require.NoError(t, err)
				received++
			}
			require.GreaterOrEqual(t, missed, hole[1]-hole[0]+1)
		})
	}
}

// When one of the keys is gone, or both, as a memory policy may do it,
// positions stay honest, and what is kept then expires as it should.
func TestHistoryThatHasLostKeys(t *testing.T) {
	onClusters(t, func(t *testing.T, c *redistest.Cluster) {
		for name, lose := range map[string]func(stream string) []string{
			"the stream": func(stream string) []string { return []string{stream} },
			"the note":   func(stream string) []string { return []string{stream + ":at"} },
			"both":       func(stream string) []string { return []string{stream, stream + ":at"} },
		} {
			t.Run(name, func(t *testing.T) {
				h := keeping(t, c.Client(t), 100)
				room := "lost " + t.Name()
				stream := "fanout:h:{" + room + "}"
				n := c.Owner(redistest.Slot(stream))
				m := member(t, h)
				require.NoError(t, h.Room(room).Join(within(t), m))
				say(t, h.Room(room), 1, 5)
				before, err := h.Room(room).History(within(t), fanout.Position{}, 0)
				require.NoError(t, err)
				require.NoError(t, n.Do(within(t), append([]string{"DEL"}, lose(stream)...)...).Error())
				say(t, h.Room(room), 6, 8)

				for _, key := range []string{stream, stream + ":at"} {
					ttl, err := n.Do(within(t), "PTTL", key).AsInt64()
					require.NoError(t, err)
					require.Positive(t, ttl, key)
				}
				after, err := h.Room(room).History(within(t), fanout.Position{}, 0)
				require.NoError(t, err)
				require.Equal(t, "8", string(after[len(after)-1].Data))
				seen := make(map[fanout.Position]string)
				for _, msg := range append(before, after...) {
					text, again := seen[msg.Position]
					require.True(t, !again || text == string(msg.Data), "two messages at %v", msg.Position)
					seen[msg.Position] = string(msg.Data)
				}
				// A member that resumes gets all messages, or a gap.
				other := keeping(t, c.Client(t), 100)
				r := member(t, other)
				require.NoError(t, other.Room(room).Resume(within(t), r, before[2].Position))
				var got []string
				missed, unknown := 0, false
				for len(got) == 0 || got[len(got)-1] != "8" {
					msg, err := r.Receive(within(t))
					if gap := new(fanout.GapError); errors.As(err, &gap) {
						missed, unknown = missed+gap.Missed, unknown || gap.Unknown
						continue
					}
					require.NoError(t, err)
					got = append(got, string(msg.Data))
				}
				require.True(t, unknown || missed+len(got) == 5, "got %v, missed %d", got, missed)
				var live []string
				for len(live) == 0 || live[len(live)-1] != "8" {
					msg, err := m.Receive(within(t))
					if gap := new(fanout.GapError); errors.As(err, &gap) {
						continue
					}
					require.NoError(t, err)
					live = append(live, string(msg.Data))
				}
				require.Equal(t, count(1, 8), live)
			})
		}
	})
}
