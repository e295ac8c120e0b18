package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func names(n int, name func(int) string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = name(i)
	}
	return list
}

// repeated returns a frame that holds a message many times.
func repeated(n int, m Message) []byte {
	b := AppendHeader(nil, &Header{Hub: 1, Stream: 1, Seq: 1, Count: n})
	return append(b, bytes.Repeat(AppendMessage(nil, &m), n)...)
}

func TestDecodeBounds(t *testing.T) {
	room := func(i int) string { return fmt.Sprint("room ", i) }
	same := func(int) string { return "r" }
	for _, test := range []struct {
		name  string
		frame []byte
		ok    bool
	}{
		{"the longest list", repeated(1, Message{ExceptRooms: names(MaxList, room)}), true},
		{"a list too long", repeated(1, Message{ExceptRooms: names(MaxList+1, room)}), false},
		{"one room excepted 262,144 times", repeated(1, Message{ExceptRooms: names(262_144, same)}), false},
		{"members named too often", repeated(1, Message{To: names(MaxList+1, same)}), false},
		{"the longest entry", repeated(1, Message{Except: []string{strings.Repeat("x", MaxEntry)}}), true},
		{"an entry too long", repeated(1, Message{Except: []string{strings.Repeat("x", MaxEntry+1)}}), false},
		{"as many entries as a frame may have", repeated(MaxLists/MaxList, Message{Except: names(MaxList, same)}), true},
		{"too many entries in all", repeated(MaxLists/MaxList+1, Message{Except: names(MaxList, same)}), false},
		{"as many messages as a frame may have", repeated(MaxCount, Message{}), true},
		{"too many messages", repeated(MaxCount+1, Message{}), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Decode(test.frame)
			if test.ok {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, ErrMalformed)
			}
		})
	}
}

// What is refused is refused before anything is allocated, but for the error.
func TestDecodeAllocatesNothing(t *testing.T) {
	for name, frame := range map[string][]byte{
		"tiny messages": repeated(MaxCount, Message{}),
		"lists":         repeated(32, Message{ID: 1, Except: names(MaxList, func(int) string { return "" })}),
		"mixed":         repeated(500, Message{ID: 7, Except: []string{"a", "b"}, ExceptRooms: []string{"c"}, To: []string{"d"}, Data: []byte("data")}),
	} {
		allocs := testing.AllocsPerRun(10, func() {
			_, d, err := Decode(frame)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			var v View
			for d.Next(&v) {
				for _, list := range [...]List{v.Except, v.ExceptRooms, v.To} {
					for entry := range list.All() {
						n += len(entry)
					}
				}
			}
		})
		require.Zero(t, allocs, name)
	}
	refused := append(repeated(MaxCount, Message{}), 0)
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() { Decode(refused) }), 5.0)
}

func TestViewIsWhatADecoderReads(t *testing.T) {
	for _, v := range vectors {
		for _, m := range v.ms {
			_, d, err := Decode(encode(v.header, m))
			require.NoError(t, err)
			var got View
			require.True(t, d.Next(&got))
			got.Unknown, got.rare = 0, true
			require.Equal(t, m.View(), got)
			require.Equal(t, len(m.Except), got.Except.Len())
		}
	}
}

// FuzzRoundTrip proves that what is encoded is decoded, if it is within the
// bounds, and refused otherwise.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint64(1), uint64(7), uint64(300), true, uint64(9), "a,b", "room", "", true, []byte("hi"), uint16(3), uint32(0), uint32(0), "")
	f.Add(uint64(0), uint64(0), uint64(1), false, uint64(0), "", "", "m", false, []byte{}, uint16(1), uint32(2), uint32(33), "value")
	f.Fuzz(func(t *testing.T, hub, stream, seq uint64, resent bool, id uint64, except, rooms, to string, volatile bool, data []byte, count uint16, inHeader, inMessage uint32, text string) {
		if count == 0 || seq == 0 || seq+uint64(count) < seq {
			return
		}
		list := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, ",")
		}
		m := Message{ID: id, Except: list(except), ExceptRooms: list(rooms), To: list(to), Volatile: volatile, Data: data}
		h := Header{Hub: hub, Stream: stream, Seq: seq, Count: int(count), Resent: resent}
		// Two fields each: the second one has to be understood if the number is
		// odd.
		fields := func(n uint32) Fields {
			if n == 0 {
				return nil
			}
			return block(Field{Number: n >> 1, Value: []byte(text)}, Field{Number: n>>1 + 1, Must: n&1 == 1})
		}
		h.Fields, m.Fields = fields(inHeader), fields(inMessage)
		frame := append(AppendHeader(nil, &h), bytes.Repeat(AppendMessage(nil, &m), int(count))...)
		got, ms, err := decodeAll(frame)
		within, entries := true, 0
		valid := func(n uint32, f Fields) bool {
			return n == 0 || n>>1 > 0 && n>>1+1 <= MaxField && len(f) <= MaxFieldBytes
		}
		if valid(inHeader, h.Fields) && inHeader&1 == 1 { // nothing more of it can be read
			require.NoError(t, err)
			_, d, _ := Decode(frame)
			require.EqualValues(t, inHeader>>1+1, d.Unknown())
			require.Len(t, ms, int(count))
			return
		}
		within = valid(inHeader, h.Fields) && valid(inMessage, m.Fields)
		for _, l := range [...][]string{m.Except, m.ExceptRooms, m.To} {
			within = within && len(l) <= MaxList
			entries += len(l)
			for _, entry := range l {
				within = within && len(entry) <= MaxEntry
			}
		}
		if !within || entries*int(count) > MaxLists {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.NoError(t, err)
		require.Equal(t, h, got)
		require.Len(t, ms, int(count))
		if m.Data == nil {
			m.Data = []byte{}
		}
		for i := range ms {
			require.Equal(t, m, ms[i])
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 400} {
		b.Run(fmt.Sprint("messages=", n), func(b *testing.B) {
			frame := repeated(n, Message{Data: make([]byte, 128)})
			b.ReportAllocs()
			for b.Loop() {
				_, d, err := Decode(frame)
				if err != nil {
					b.Fatal(err)
				}
				var v View
				for d.Next(&v) {
				}
			}
		})
	}
}
