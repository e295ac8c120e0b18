package wire

import (
	"bytes"
	"encoding/hex"
	"math"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func encode(h Header, ms ...Message) []byte {
	h.Count = len(ms)
	b := AppendHeader(nil, &h)
	for i := range ms {
		b = AppendMessage(b, &ms[i])
	}
	return b
}

func decodeAll(frame []byte) (h Header, ms []Message, err error) {
	h, d, err := Decode(frame)
	if err != nil {
		return h, nil, err
	}
	var v View
	for d.Next(&v) {
		ms = append(ms, Message{v.ID, texts(v.Except), texts(v.ExceptRooms), texts(v.To), v.Volatile, v.Fields, v.Data})
	}
	return h, ms, nil
}

func texts(l List) (list []string) {
	for entry := range l.All() {
		list = append(list, string(entry))
	}
	return list
}

// The test vectors of WIRE.md.
var vectors = []struct {
	name   string
	header Header
	ms     []Message
	hex    string
}{
	{
		"one message",
		Header{Hub: 0x0123456789abcdef, Time: 1700000000000, Stream: 1, Seq: 1},
		[]Message{{Data: []byte("hello")}},
		"fa666f0101000123456789abcdef0000018bcfe56800010101" + "000568656c6c6f",
	},
	{
		"sent again, two messages from number 300 on",
		Header{Hub: 0x0123456789abcdef, Time: 1700000000000, Stream: 7, Seq: 300, Resent: true},
		[]Message{{Data: []byte("a")}, {Data: []byte{}}},
		"fa666f0101010123456789abcdef0000018bcfe5680007ac0202" + "000161" + "0000",
	},
	{
		"to several rooms, with exceptions, volatile",
		Header{Hub: 1, Stream: 2, Seq: 3},
		[]Message{{ID: 9, Except: []string{"m1", "m2"}, ExceptRooms: []string{"x"}, Volatile: true, Data: []byte("hi")}},
		"fa666f01010000000000000000010000000000000000020301" + "17" + "09" + "02026d31026d32" + "010178" + "026869",
	},
	{
		"direct",
		Header{Hub: 1, Stream: 2, Seq: 3},
		[]Message{{To: []string{"m1"}, Data: []byte("psst")}},
		"fa666f01010000000000000000010000000000000000020301" + "08" + "01026d31" + "0470737374",
	},
	{
		"fields that can be skipped",
		Header{Hub: 1, Stream: 2, Seq: 3, Fields: block(Field{Number: 32768, Value: []byte("h")})},
		[]Message{{Fields: block(Field{Number: 32768, Value: []byte("k")}, Field{Number: 32769}), Data: []byte("hi")}},
		"fa666f01010200000000000000010000000000000000020301" + "05" + "8080040168" + "20" + "09" + "808004016b" + "82800400" + "026869",
	},
	{
		"a field that has to be understood",
		Header{Hub: 1, Stream: 2, Seq: 3},
		[]Message{{Fields: block(Field{Number: 32768, Must: true, Value: []byte("k")}), Data: []byte("hi")}},
		"fa666f01010000000000000000010000000000000000020301" + "20" + "05" + "818004016b" + "026869",
	},
}

func TestVectors(t *testing.T) {
	doc, err := os.ReadFile("../../WIRE.md")
	require.NoError(t, err)
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			frame := encode(v.header, v.ms...)
			require.Equal(t, v.hex, hex.EncodeToString(frame))
			require.True(t, strings.Contains(string(doc), v.hex), "WIRE.md lacks %s", v.hex)
			h, ms, err := decodeAll(frame)
			require.NoError(t, err)
			v.header.Count = len(v.ms)
			require.Equal(t, v.header, h)
			require.Equal(t, v.ms, ms)
		})
	}
}

func TestSizeIsWhatIsAppended(t *testing.T) {
	for _, v := range vectors {
		for _, m := range v.ms {
			require.Equal(t, len(AppendMessage(nil, &m)), m.Size(), v.name)
		}
	}
	big := Message{ID: math.MaxUint64, Data: make([]byte, 1<<15)}
	require.Equal(t, len(AppendMessage(nil, &big)), big.Size())
}

func TestStrangersPayloadIsNoFrame(t *testing.T) {
	for _, p := range []string{"", "hello", "{}", "안녕", "\xfa", "\xfafO..............."} {
		_, _, err := Decode([]byte(p))
		require.ErrorIs(t, err, ErrForeign, "%q", p)
	}
}

func TestMalformedFramesAreRefused(t *testing.T) {
	good := encode(Header{Hub: 1, Stream: 1, Seq: 5}, Message{Data: []byte("x")}, Message{ID: 3, Data: []byte("y")})
	for n := len(magic); n < len(good); n++ {
		_, _, err := decodeAll(good[:n])
		require.ErrorIs(t, err, ErrMalformed, "cut at %d", n)
	}
	_, _, err := decodeAll(append(bytes.Clone(good), 0))
	require.ErrorIs(t, err, ErrMalformed, "one byte too many")

	future := bytes.Clone(good)
	future[3]++
	_, _, err = decodeAll(future)
	require.ErrorIs(t, err, ErrVersion)

	for name, at := range map[string]int{"frame flags": 5, "message flags": 25} {
		bad := bytes.Clone(good)
		bad[at] = 0x80
		_, _, err = decodeAll(bad)
		require.ErrorIs(t, err, ErrMalformed, name)
	}
	bomb := AppendHeader(nil, &Header{Hub: 1, Stream: 1, Seq: 1, Count: 1 << 40})
	_, _, err = decodeAll(append(bomb, 0, 0))
	require.ErrorIs(t, err, ErrMalformed, "more messages than bytes")
}

func TestAgainLeavesTheFirstFrameAlone(t *testing.T) {
	first := encode(Header{Hub: 1, Time: 5, Stream: 1, Seq: 1}, Message{Data: []byte("x")})
	keep := bytes.Clone(first)
	h, _, err := decodeAll(Again(first, true, 9))
	require.NoError(t, err)
	require.Equal(t, Header{Hub: 1, Time: 5, Stream: 1, Seq: 1, Count: 1, Resent: true}, h)
	h, _, err = decodeAll(Again(first, false, 9))
	require.NoError(t, err)
	require.Equal(t, Header{Hub: 1, Time: 9, Stream: 1, Seq: 1, Count: 1}, h)
	require.Equal(t, keep, first)
}

func FuzzDecode(f *testing.F) {
	for _, v := range vectors {
		b, _ := hex.DecodeString(v.hex)
		f.Add(b)
	}
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, d, err := Decode(frame); err == nil {
			for v := new(View); d.Next(v); {
			}
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 64<<10 { // of others
			t.Fatalf("%d bytes allocated for %d", took, len(frame))
		}
		h, ms, err := decodeAll(frame)
		if err != nil {
			return
		}
		if len(ms) != h.Count {
			t.Fatalf("%d messages, header says %d", len(ms), h.Count)
		}
		if _, d, _ := Decode(frame); d.Unknown() != 0 {
			return // the messages cannot be read
		}
		again := encode(h, ms...)
		hints := frame[5]&frameHints != 0
		for at := range frame {
			hints = hints || at >= len(again) || frame[at]^again[at] == messageHints
		}
		if !hints && !bytes.Equal(again, frame) || len(again) != len(frame) {
			t.Fatalf("decoded and encoded again:\n%x\n%x", frame, again)
		}
		if h2, ms2, err := decodeAll(again); err != nil || !reflect.DeepEqual(h, h2) || !reflect.DeepEqual(ms, ms2) {
			t.Fatalf("decoded twice:\n%v %v\n%v %v", h, ms, h2, ms2)
		}
	})
}

func TestRoomNames(t *testing.T) {
	for _, good := range []string{"a", "방", strings.Repeat("x", 255), "a{b}c", "%7B", "a b\n", "[a-z]*", "everyone"} {
		require.NoError(t, CheckRoom(good), "%q", good)
	}
	for _, bad := range []string{"", strings.Repeat("x", 256), "a\xff"} {
		require.Error(t, CheckRoom(bad), "%q", bad)
	}
	require.Equal(t, "fanout:r:{lobby}", Names{DefaultPrefix}.Room("lobby"))
	require.Equal(t, "fanout:r:{a%7Bb%7D%25}", Names{DefaultPrefix}.Room("a{b}%"))
	require.Equal(t, "fanout:i:{00ff}", Names{DefaultPrefix}.Inbox("00ff"))
	require.Equal(t, "fanout:u:{a%7Bb%7D%25}", Names{DefaultPrefix}.User("a{b}%"))
	user, ok := Names{DefaultPrefix}.UserOf("fanout:u:{a%7Bb%7D%2525}")
	require.True(t, ok)
	require.Equal(t, "a{b}%25", user)
	for _, other := range []string{"fanout:r:{a}", "x:u:{a}", "fanout:u:{a"} {
		_, ok = Names{DefaultPrefix}.UserOf(other)
		require.False(t, ok, other)
	}
	require.NoError(t, CheckPrefix("my:app"))
	for _, bad := range []string{"", "a{", "}", strings.Repeat("x", 65), "\xff"} {
		require.Error(t, CheckPrefix(bad), "%q", bad)
	}
}

// FuzzNames proves that no two rooms share a channel, that a room's channel is
// no other kind's, and that what belongs to a room shares its slot.
func FuzzNames(f *testing.F) {
	f.Add("a", "b")
	f.Add("{", "%7B")
	f.Add("}:i:{x", "everyone")
	f.Add("%", "%25")
	f.Fuzz(func(t *testing.T, a, b string) {
		if CheckRoom(a) != nil || CheckRoom(b) != nil {
			return
		}
		n := Names{DefaultPrefix}
		if (n.Room(a) == n.Room(b)) != (a == b) {
			t.Fatalf("%q and %q have the channels %q and %q", a, b, n.Room(a), n.Room(b))
		}
		if n.Room(a) == n.Everyone() || n.Room(a) == n.Inbox(b) {
			t.Fatalf("%q is another kind's channel", a)
		}
		key := strings.Replace(n.Room(a), ":r:", ":h:", 1)
		if Slot(n.Room(a)) != Slot(key) || Slot(n.Room(a)) != Slot(escape(a)) {
			t.Fatalf("%q: the slot is not that of its name", a)
		}
		if !utf8.ValidString(n.Room(a)) {
			t.Fatalf("%q: channel is not UTF-8", a)
		}
	})
}

func TestEachChannelHasItsOwnHistory(t *testing.T) {
	n := Names{DefaultPrefix}
	channels := []string{
		n.Room("a"), n.Room("a") + ":h", n.Room("a") + ":h:at", n.Room("a:h"), n.Room("a}:h"),
		"fanout:h:{a}", "fanout:h:{a}:at", "fanout:h:{a}:h", n.Inbox("a"), n.Everyone(),
	}
	owner := make(map[string]string)
	for _, channel := range channels {
		stream, note := HistoryKeys(channel)
		for _, key := range []string{stream, note} {
			if other, ok := owner[key]; ok {
				t.Errorf("%s is a key of %s and of %s", key, channel, other)
			}
			owner[key] = channel
			if Slot(key) != Slot(channel) {
				t.Errorf("%s is not in the slot of %s", key, channel)
			}
		}
	}
}
