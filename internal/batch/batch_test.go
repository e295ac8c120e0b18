package batch

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// strange is a field that has to be understood, and is not.
var strange = wire.AppendField(nil, wire.Field{Number: wire.PrivateFields, Must: true})

// frame returns a hub's frame of messages: "?" is one that is not understood,
// and a name in capitals one that is volatile.
func frame(h wire.Header, messages ...string) []byte {
	h.Hub, h.Stream, h.Seq, h.Count = 7, 1, 1, len(messages)
	f := wire.AppendHeader(nil, &h)
	for _, s := range messages {
		m := wire.Message{Data: []byte(s), Volatile: s != "" && s == strings.ToUpper(s)}
		if s == "?" {
			m.Volatile, m.Fields = false, strange
		}
		f = wire.AppendMessage(f, &m)
	}
	return f
}

var home = &item.Home{ID: "0000000000000007", Arrival: func() uint64 { return 1 }}

func open(t *testing.T, frame []byte) *Batch {
	b := new(Batch)
	require.NoError(t, b.Open(frame))
	return b
}

func unpack(t *testing.T, frame []byte, skip int) *Unpacker {
	u := new(Unpacker)
	open(t, frame).Unpack(u, home, skip, "sender")
	return u
}

func data(entries []item.Entry) (list []string) {
	for _, e := range entries {
		list = append(list, string(e.Data))
	}
	return list
}

func TestBatch(t *testing.T) {
	t.Run("of a hub's frame", func(t *testing.T) {
		b := open(t, frame(wire.Header{}, "a", "b"))
		require.Equal(t, 2, b.Count())
		require.False(t, b.Foreign())
		require.EqualValues(t, 7, b.Head.Hub)
	})
	t.Run("of another program's payload", func(t *testing.T) {
		for _, payload := range [][]byte{[]byte("hello"), {}, nil} {
			b := open(t, payload)
			require.Equal(t, 1, b.Count())
			require.True(t, b.Foreign())
			var u Unpacker
			b.Unpack(&u, home, 0, "")
			require.True(t, u.Read())
			require.True(t, u.Understood())
			e := u.Entry()
			require.NotNil(t, e.Data)
			require.Equal(t, string(payload), string(e.Data))
			require.False(t, u.Read())
		}
	})
	t.Run("stays zero when the frame is broken", func(t *testing.T) {
		var b Batch
		f := frame(wire.Header{}, "a", "b")
		require.Error(t, b.Open(f[:len(f)-1]))
		require.Equal(t, Batch{}, b)
		require.Zero(t, b.Count())
	})
}

func TestUnpacker(t *testing.T) {
	t.Run("reads every message once", func(t *testing.T) {
		u := unpack(t, frame(wire.Header{}, "a", "", "B"), 0)
		require.Equal(t, 3, u.Left())
		var got []item.Entry
		for u.Read() {
			require.True(t, u.Understood())
			require.Zero(t, u.To().Len())
			got = append(got, u.Entry())
		}
		require.Equal(t, []string{"a", "", "B"}, data(got))
		require.Equal(t, []bool{false, false, true}, []bool{got[0].Volatile, got[1].Volatile, got[2].Volatile})
		require.Equal(t, "sender", got[0].Sender)
		require.NotNil(t, got[1].Data)
		require.False(t, u.More())
	})
	t.Run("begins after those that are skipped", func(t *testing.T) {
		u := unpack(t, frame(wire.Header{}, "?", "a", "b"), 2)
		require.Equal(t, NotUnderstood{}, u.TakeNotUnderstood())
		before, got := u.Fill(make([]item.Entry, 0, 9))
		require.Zero(t, before)
		require.Equal(t, []string{"b"}, data(got))
	})
	t.Run("gives positions", func(t *testing.T) {
		u := unpack(t, frame(wire.Header{}, "a", "b"), 0)
		u.At = adapter.Position{Epoch: 3, Offset: 9}
		_, got := u.Fill(make([]item.Entry, 0, 9))
		require.Equal(t, adapter.Position{Epoch: 3, Offset: 10}, got[0].At)
		require.Equal(t, adapter.Position{Epoch: 3, Offset: 11}, got[1].At)
	})
	t.Run("passes over messages, and counts what is missed", func(t *testing.T) {
		u := unpack(t, frame(wire.Header{}, "a", "B", "?", "c", "d"), 0)
		require.Equal(t, 3, u.PassOver(4))
		require.Equal(t, 1, u.Left())
		require.Equal(t, 1, u.TakeNotUnderstood().Count)
		require.Equal(t, 1, u.PassOver(4))
	})
	t.Run("says where messages were not understood", func(t *testing.T) {
		u := unpack(t, frame(wire.Header{}, "?", "?", "a", "b", "c", "?", "d", "?"), 0)
		u.At = adapter.Position{Epoch: 3}
		unknown := func(count int, offset uint64) NotUnderstood {
			return NotUnderstood{Count: count, Field: wire.PrivateFields, At: adapter.Position{Epoch: 3, Offset: offset}}
		}
		for _, want := range []struct {
			before  NotUnderstood
			entries []string
		}{
			{unknown(2, 2), []string{"a", "b"}},
			{NotUnderstood{}, []string{"c"}},
			{unknown(1, 6), []string{"d"}},
			{unknown(1, 8), nil},
		} {
			require.True(t, u.More())
			before, entries := u.Fill(make([]item.Entry, 0, 2))
			require.Equal(t, want.before, before)
			require.Equal(t, want.entries, data(entries))
		}
		require.False(t, u.More())
		require.False(t, u.NoneUnderstood())
	})
	t.Run("understands nothing after a header that is not understood", func(t *testing.T) {
		u := unpack(t, frame(wire.Header{Fields: strange}, "a", "b"), 0)
		require.True(t, u.NoneUnderstood())
		before, entries := u.Fill(make([]item.Entry, 0, 9))
		require.Equal(t, 2, before.Count)
		require.Empty(t, entries)
	})
}

func TestDataKeepsNoLargeFrameAlive(t *testing.T) {
	shared := func(e item.Entry, frame []byte) bool {
		before := e.Data[0]
		at := bytes.Index(frame, e.Data)
		frame[at] ^= 1
		defer func() { frame[at] ^= 1 }()
		return e.Data[0] != before
	}
	withLists := func(data string) []byte {
		f := wire.AppendHeader(nil, &wire.Header{Hub: 7, Stream: 1, Seq: 1, Count: 2})
		f = wire.AppendMessage(f, &wire.Message{ExceptRooms: []string{strings.Repeat("r", 200)}, Data: []byte("other")})
		return wire.AppendMessage(f, &wire.Message{Except: []string{strings.Repeat("m", 200), strings.Repeat("n", 200), strings.Repeat("o", 200)}, Data: []byte(data)})
	}
	for name, test := range map[string]struct {
		frame  []byte
		last   string
		shared bool
	}{
		"a frame of data is shared":              {frame(wire.Header{}, "other", "last"), "last", true},
		"short data beside long lists is copied": {withLists("last"), "last", false},
		"and so is data of some length":          {withLists("last" + strings.Repeat("x", 1500)), "last", true},
		"as long as it is less than half of it":  {bytes.Clone(bigFrame(1500)), "last", false},
	} {
		t.Run(name, func(t *testing.T) {
			u := unpack(t, test.frame, 0)
			_, entries := u.Fill(make([]item.Entry, 0, 100))
			e := entries[len(entries)-1]
			require.True(t, strings.HasPrefix(string(e.Data), test.last))
			require.Equal(t, test.shared, shared(e, test.frame))
		})
	}
}

// bigFrame returns a frame that is larger than those of hubs.
func bigFrame(last int) []byte {
	list := make([]string, 70)
	for i := range list {
		list[i] = strings.Repeat("x", 1000)
	}
	return frame(wire.Header{}, append(list, "last"+strings.Repeat("y", last))...)
}

func TestKept(t *testing.T) {
	at := adapter.Position{Epoch: 5, Offset: 11}
	t.Run("has the positions of its messages", func(t *testing.T) {
		var b KeptFrame
		require.NoError(t, OpenKept(&b, adapter.KeptFrame{Frame: frame(wire.Header{}, "a", "b", "c"), At: at, Age: time.Second}, int64(time.Minute)))
		require.EqualValues(t, 9, b.First)
		require.Equal(t, 3, b.Messages)
		require.EqualValues(t, 59*time.Second, b.Body.Since)
		var u Unpacker
		UnpackKept(&u, &b, home, 1, "sender")
		_, entries := u.Fill(make([]item.Entry, 0, 9))
		require.Equal(t, []string{"b", "c"}, data(entries))
		require.Equal(t, at, entries[1].At)
	})
	t.Run("cannot begin before the history", func(t *testing.T) {
		var b KeptFrame
		f := adapter.KeptFrame{Frame: frame(wire.Header{}, "a", "b"), At: adapter.Position{Epoch: 5, Offset: 1}}
		require.ErrorContains(t, OpenKept(&b, f, 0), "2 messages that end at offset 1")
		require.True(t, b.Unreadable)
		require.Zero(t, b.Messages)
	})
	t.Run("without a place", func(t *testing.T) {
		f := frame(wire.Header{}, "a", "b")
		k := WithoutPlace(open(t, f), len(f))
		require.True(t, k.At.IsZero())
		require.Equal(t, 2, k.Messages)
		require.Greater(t, k.Size, len(f))
	})
}
