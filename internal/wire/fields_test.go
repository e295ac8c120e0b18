package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func block(fields ...Field) (f Fields) {
	for _, one := range fields {
		f = AppendField(f, one)
	}
	return f
}

func value(s string) []byte { return []byte(s) }

func TestFields(t *testing.T) {
	f := block(Field{Number: 1, Value: value("a")}, Field{Number: 2, Must: true, Value: value("")}, Field{Number: 300, Value: value("ccc")})
	t.Run("are read in order", func(t *testing.T) {
		var got []Field
		for one := range f.All() {
			got = append(got, one)
		}
		require.Equal(t, []Field{{1, false, value("a")}, {2, true, value("")}, {300, false, value("ccc")}}, got)
		for range f.All() {
			break
		}
	})
	t.Run("are found by number", func(t *testing.T) {
		for number, want := range map[uint32]string{1: "a", 2: "", 300: "ccc"} {
			got, ok := f.Get(number)
			require.True(t, ok)
			require.Equal(t, want, string(got))
		}
		for _, number := range []uint32{0, 3, 299, 301} {
			_, ok := f.Get(number)
			require.False(t, ok, number)
		}
		_, ok := Fields(nil).Get(1)
		require.False(t, ok)
	})
	t.Run("allocate nothing", func(t *testing.T) {
		require.Zero(t, testing.AllocsPerRun(10, func() {
			n := 0
			for one := range f.All() {
				n += len(one.Value)
			}
			if _, ok := f.Get(300); !ok || n != 4 {
				t.Fatal("not found")
			}
		}))
	})
	t.Run("are carried by messages and headers", func(t *testing.T) {
		frame := encode(Header{Hub: 1, Stream: 1, Seq: 1, Fields: block(Field{Number: 9, Value: value("h")})},
			Message{Volatile: true, To: []string{"m"}, Fields: block(Field{Number: 3, Value: value("x")}), Data: value("d")}, Message{Data: value("e")})
		h, ms, err := decodeAll(frame)
		require.NoError(t, err)
		got, _ := h.Fields.Get(9)
		require.Equal(t, "h", string(got))
		got, _ = ms[0].Fields.Get(3)
		require.Equal(t, "x", string(got))
		require.Equal(t, "d", string(ms[0].Data))
		require.Nil(t, ms[1].Fields)
	})
}

// unknownOf decodes a frame and returns View.Unknown of its messages.
func unknownOf(t *testing.T, frame []byte) (unknown []uint32) {
	t.Helper()
	_, d, err := Decode(frame)
	require.NoError(t, err)
	for v := new(View); d.Next(v); {
		unknown = append(unknown, v.Unknown)
	}
	return unknown
}

func TestMustUnderstand(t *testing.T) {
	h := Header{Hub: 1, Stream: 1, Seq: 1}
	hard, soft := block(Field{Number: 5, Value: value("s")}, Field{Number: 77, Must: true}, Field{Number: 78, Must: true}), block(Field{Number: 77})
	t.Run("makes a message unreadable, and no other", func(t *testing.T) {
		frame := encode(h, Message{Data: value("a")}, Message{Fields: hard, To: []string{"m"}}, Message{Fields: soft}, Message{Data: value("b")})
		require.Equal(t, []uint32{0, 77, 0, 0}, unknownOf(t, frame))
		_, d, _ := Decode(frame)
		var v View
		d.Next(&v)
		d.Next(&v)
		require.Equal(t, 1, v.To.Len(), "whom it is for can be read")
		d.Next(&v)
		require.Zero(t, v.To)
	})
	t.Run("in a header makes all messages unreadable, whatever they look like", func(t *testing.T) {
		h.Fields, h.Count = hard, 3
		frame := append(AppendHeader(nil, &h), "compressed"...)
		require.Equal(t, []uint32{77, 77, 77}, unknownOf(t, frame))
		_, d, err := Decode(frame)
		require.NoError(t, err)
		require.EqualValues(t, 77, d.Unknown())
		require.Zero(t, d.Data())
		h.Count = MaxCount + 1
		_, _, err = Decode(AppendHeader(nil, &h))
		require.ErrorIs(t, err, ErrMalformed)
	})
	t.Run("is no matter for a field that is known", func(t *testing.T) {
		d := Decoder{rest: appendFields(nil, hard)}
		_, unknown, ok := d.block(1<<5 | 1<<63)
		require.True(t, ok)
		require.EqualValues(t, 77, unknown)
		d = Decoder{rest: appendFields(nil, block(Field{Number: 63, Must: true}))}
		_, unknown, ok = d.block(1 << 63)
		require.True(t, ok)
		require.Zero(t, unknown)
	})
}

func TestFieldBounds(t *testing.T) {
	many := func(n int) (f Fields) {
		for i := range n {
			f = AppendField(f, Field{Number: uint32(i + 1)})
		}
		return f
	}
	long := func(n int) Fields { return block(Field{Number: 1, Value: make([]byte, n-4)}) }
	raw := func(b ...byte) Fields { return b }
	for name, c := range map[string]struct {
		fields Fields
		ok     bool
	}{
		"one":                               {block(Field{Number: 1}), true},
		"as many as there may be":           {many(MaxFields), true},
		"too many":                          {many(MaxFields + 1), false},
		"as long as it may be":              {long(MaxFieldBytes), true},
		"too long":                          {long(MaxFieldBytes + 1), false},
		"the largest number":                {block(Field{Number: MaxField}), true},
		"a number too large":                {block(Field{Number: MaxField + 1}), false},
		"number 0":                          {block(Field{Number: 0}), false},
		"a number twice":                    {block(Field{Number: 4}, Field{Number: 4, Must: true}), false},
		"numbers that descend":              {block(Field{Number: 4}, Field{Number: 3}), false},
		"a value cut short":                 {raw(2, 5, 'x'), false},
		"a key and no length":               {raw(2), false},
		"a number that is not the shortest": {raw(0x82, 0, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "as long") {
				require.Len(t, c.fields, MaxFieldBytes)
			}
			for _, frame := range [][]byte{
				encode(Header{Hub: 1, Stream: 1, Seq: 1}, Message{Fields: c.fields}),
				encode(Header{Hub: 1, Stream: 1, Seq: 1, Fields: c.fields}, Message{}),
			} {
				_, _, err := Decode(frame)
				if c.ok {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, ErrMalformed)
				}
			}
		})
	}
	t.Run("an empty block", func(t *testing.T) {
		frame := encode(Header{Hub: 1, Stream: 1, Seq: 1}, Message{})
		frame[25] = flagExtended // then a length of 0
		_, _, err := Decode(append(frame, 0))
		require.ErrorIs(t, err, ErrMalformed)
	})
}

func TestUnknownFlags(t *testing.T) {
	good := encode(Header{Hub: 1, Stream: 1, Seq: 1}, Message{Data: value("x")})
	for bit := range 8 {
		frame := bytes.Clone(good)
		frame[5] |= 1 << bit
		_, _, err := Decode(frame)
		if bit == 0 || bit == 2 || bit == 3 {
			require.NoError(t, err, "bit %d of a frame is known, or ignored", bit)
		} else {
			require.ErrorIs(t, err, ErrMalformed, "bit %d of a frame", bit)
		}
	}
	for _, volatile := range []bool{false, true} {
		frame := encode(Header{Hub: 1, Stream: 1, Seq: 1}, Message{Volatile: volatile, Data: value("x")})
		frame[25] |= messageHints
		_, ms, err := decodeAll(frame)
		require.NoError(t, err)
		require.Equal(t, []Message{{Volatile: volatile, Data: value("x")}}, ms)
		frame[25] |= 1 << 7
		_, _, err = decodeAll(frame)
		require.ErrorIs(t, err, ErrMalformed)
	}
}

func TestHello(t *testing.T) {
	h := Hello{Hub: 0x0123456789abcdef, Time: 1700000000000, Level: 1, Release: "v1.2.3", Answer: true}
	frame := AppendHello(nil, &h)
	t.Run("is as in WIRE.md", func(t *testing.T) {
		require.Equal(t, "fa666f0180020123456789abcdef0000018bcfe56800"+"0d"+"020101"+"040676312e322e33"+"0600", hex.EncodeToString(frame))
		requireDocumented(t, hex.EncodeToString(frame))
		got, err := DecodeHello(frame)
		require.NoError(t, err)
		require.Equal(t, h, got)
	})
	t.Run("has no messages", func(t *testing.T) {
		_, _, err := Decode(frame)
		require.Equal(t, ErrNotice, err)
	})
	t.Run("may say little", func(t *testing.T) {
		h := Hello{Hub: 1, Level: 300}
		got, err := DecodeHello(AppendHello(nil, &h))
		require.NoError(t, err)
		require.Equal(t, h, got)
	})
	with := func(fields ...Field) []byte { return appendFields(bytes.Clone(frame[:headerMin]), block(fields...)) }
	level := Field{Number: fieldLevel, Value: []byte{3}}
	t.Run("of a later release", func(t *testing.T) {
		got, err := DecodeHello(with(level, Field{Number: 40, Value: value("more")}))
		require.NoError(t, err)
		require.Equal(t, 3, got.Level)
		_, err = DecodeHello(with(level, Field{Number: 40, Must: true}))
		require.Equal(t, ErrNotice, err)
		other := bytes.Clone(frame)
		other[4] = 0xff
		_, err = DecodeHello(other)
		require.Equal(t, ErrNotice, err)
	})
	t.Run("that is malformed", func(t *testing.T) {
		flags := bytes.Clone(frame)
		flags[5] = 0
		for name, bad := range map[string][]byte{
			"a frame of messages":    encode(Header{Hub: 1, Stream: 1, Seq: 1}, Message{}),
			"cut short":              frame[:len(frame)-1],
			"with more behind":       append(bytes.Clone(frame), 0),
			"without fields":         flags,
			"without a level":        with(Field{Number: fieldRelease, Value: value("x")}),
			"level 0":                with(Field{Number: fieldLevel, Value: []byte{0}}),
			"a level beyond 2^31":    with(Field{Number: fieldLevel, Value: binary.AppendUvarint(nil, 1<<31)}),
			"a level and more":       with(Field{Number: fieldLevel, Value: []byte{1, 1}}),
			"a release too long":     with(level, Field{Number: fieldRelease, Value: make([]byte, MaxRelease+1)}),
			"a release that is none": with(level, Field{Number: fieldRelease, Value: value("\xff")}),
		} {
			_, err := DecodeHello(bad)
			require.ErrorIs(t, err, ErrMalformed, name)
		}
	})
}

func requireDocumented(t *testing.T, text string) {
	t.Helper()
	doc, err := os.ReadFile("../../WIRE.md")
	require.NoError(t, err)
	require.True(t, strings.Contains(string(doc), text), "WIRE.md lacks %s", text)
}

// The checksum of an announcement, as WIRE.md computes it.
func TestChecksumIsDocumented(t *testing.T) {
	require.Equal(t, "e3069283", Checksum([]byte("123456789")))
	frame, err := hex.DecodeString(vectors[0].hex)
	require.NoError(t, err)
	require.Equal(t, "2f405435", Checksum(frame))
	payload := AppendAnnouncement(nil, 1700000000000, 42, frame)
	requireDocumented(t, hex.EncodeToString(payload))
	for _, text := range []string{"`e3069283`", "`2f405435`"} {
		requireDocumented(t, text)
	}
}

func FuzzHello(f *testing.F) {
	f.Add(AppendHello(nil, &Hello{Hub: 1, Level: 1, Release: "v1", Answer: true}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, err := DecodeHello(frame)
		if err != nil {
			return
		}
		again, err := DecodeHello(AppendHello(nil, &h))
		if err != nil || again != h {
			t.Fatalf("%+v, then %+v, %v", h, again, err)
		}
	})
}
