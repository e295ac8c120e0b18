package control

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// payloads has each kind with all fields set, and with none.
func payloads() []Payload {
	list := []Entry{
		{Number: 1, Since: 1_700_000_000_000, Count: 1, Name: []byte("ann"), Data: []byte("info")},
		{Number: math.MaxUint64, Name: []byte{}, Data: []byte{}},
	}
	return []Payload{
		&Question{
			ID: 1, Attempt: 2, Op: OpClose, Credit: 8, Wait: 10_000, Scope: ScopeRooms, Which: 1,
			Names: []string{"lobby", "{a}[]*?%#\x00 🎲"}, Rooms: []string{"r"}, Text: []byte("kicked"), Life: 3, Seq: 4, Digest: 5,
			Except: []string{"0123456789abcdef-1"}, ExceptRooms: []string{"quiet"}, Data: []byte("anyone?"),
		},
		&Question{Op: OpRoll, Scope: ScopeEveryone, Text: []byte{}, Data: []byte{}},
		&Answer{ID: 1, Attempt: 2, Status: StatusMore, Page: 3, Covers: []uint64{0, 1023}, Count: 2, Entries: list, Life: 1, Seq: 2, Digest: 3, Mode: ModeList},
		&Answer{Status: StatusLast},
		&Credit{ID: 1, From: 2, Upto: math.MaxUint64},
		&Cancel{ID: 300},
		&Announcement{Life: 1, Seq: 2, Mode: ModeSummary, Count: 2, Digest: math.MaxUint64, Joined: list, Left: []uint64{7, 8}, Again: true},
		&Announcement{Mode: ModeList},
		&Hello{Incarnation: 1, Since: 2, Version: []byte("v1.2.3"), Leaving: true},
		&Verdict{Hub: 0x0123456789abcdef, Incarnation: 2},
		&Verdict{Gone: true, Hub: 1},
		&Probe{Number: 1, Hubs: 2, Digest: 3},
		&Probe{Ack: true},
		&Roster{Answer: true, Hubs: []Known{{Hub: 1, Incarnation: 2, Since: 3, Gone: true}, {Hub: 4}}},
		&Roster{},
	}
}

func TestDecode(t *testing.T) {
	t.Run("reads what Append has written", func(t *testing.T) {
		for _, p := range payloads() {
			got, err := Decode(p.Append(nil))
			require.NoError(t, err)
			require.Equal(t, p, got)
		}
	})
	t.Run("skips fields that it does not know", func(t *testing.T) {
		for _, p := range payloads() {
			got, err := Decode(append(p.Append(nil), "a later field"...))
			require.NoError(t, err)
			require.Equal(t, p, got)
		}
	})
	t.Run("refuses a payload that is cut short", func(t *testing.T) {
		for _, p := range payloads() {
			whole := p.Append(nil)
			for n := range whole {
				_, err := Decode(whole[:n])
				require.ErrorIs(t, err, ErrMalformed, "%T, %d of %d bytes", p, n, len(whole))
			}
		}
	})
	t.Run("says what it does not know", func(t *testing.T) {
		for _, b := range [][]byte{{2, 1}, {0, 1, 0}, {1, 0}, {1, byte(KindRoster) + 1, 0}} {
			_, err := Decode(b)
			require.ErrorIs(t, err, ErrUnknown)
		}
	})
	t.Run("keeps bounds", func(t *testing.T) {
		long := func(n int) []string { return make([]string, n) }
		for name, test := range map[string]struct {
			p  Payload
			ok bool
		}{
			"as many names as there may be": {&Question{Names: long(MaxNames)}, true},
			"too many names":                {&Question{Names: long(MaxNames + 1)}, false},
			"the longest name":              {&Question{Rooms: []string{strings.Repeat("x", MaxName)}}, true},
			"too long a name":               {&Question{Rooms: []string{strings.Repeat("x", MaxName+1)}}, false},
			"the longest reason":            {&Question{Text: make([]byte, MaxText)}, true},
			"too long a reason":             {&Question{Text: make([]byte, MaxText+1)}, false},
			"as many entries as may be":     {&Answer{Entries: make([]Entry, MaxEntries)}, true},
			"too many entries":              {&Answer{Entries: make([]Entry, MaxEntries+1)}, false},
			"too many members that left":    {&Announcement{Left: make([]uint64, MaxEntries+1)}, false},
			"too many hubs":                 {&Roster{Hubs: make([]Known, MaxEntries+1)}, false},
			"a long reply":                  {&Answer{Entries: []Entry{{Data: make([]byte, 1<<20)}}}, true},
		} {
			_, err := Decode(test.p.Append(nil))
			if test.ok {
				require.NoError(t, err, name)
			} else {
				require.ErrorIs(t, err, ErrMalformed, name)
			}
		}
	})
	t.Run("allocates for a page no more than its entries", func(t *testing.T) {
		page := (&Answer{Entries: make([]Entry, 1000)}).Append(nil)
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() { Decode(page) }), 2.0)
	})
}

// The vectors are in WIRE.md, too, as far as this says so.
func TestVectors(t *testing.T) {
	question := "0101" + "08" + "00" + "03" + "08" + "904e" + "01" + "00" + "01056c6f626279" + "00" + "00" + "0000" + "0000000000000000" + "000000"
	doc, err := os.ReadFile("../../WIRE.md")
	require.NoError(t, err)
	for _, text := range []string{
		question,
		hex.EncodeToString(wire.AppendControl(nil, 0x0123456789abcdef, 1_700_000_000_000,
			(&Probe{Number: 1, Hubs: 1, Digest: Mix(0x0123456789abcdef + Mix(1))}).Append(nil))),
		fmt.Sprintf("`mix(1)` is `%016x`", Mix(1)),
	} {
		require.True(t, strings.Contains(string(doc), text), "WIRE.md lacks %s", text)
	}
	for want, p := range map[string]Payload{
		question: &Question{
			ID: 8, Op: OpCount, Credit: 8, Wait: 10_000, Scope: ScopeRooms, Names: []string{"lobby"},
		},
		"0102" + "07" + "00" + "02" + "00" + "0100" + "2a" + "00" + "0000" + "0000000000000000" + "00": &Answer{
			ID: 7, Status: StatusLast, Covers: []uint64{0}, Count: 42,
		},
		"0103070309": &Credit{ID: 7, From: 3, Upto: 9},
	} {
		require.Equal(t, want, hex.EncodeToString(p.Append(nil)))
	}
}

func TestStatus(t *testing.T) {
	for s, want := range map[Status][2]bool{
		StatusMore: {false, true}, StatusLast: {true, true}, StatusWorking: {false, false}, StatusBusy: {false, false},
		StatusSame: {true, true}, StatusNotUnderstood: {true, true}, StatusFailed: {true, true},
	} {
		require.Equal(t, want, [2]bool{s.Final(), s.HasPage()}, s)
	}
}

func TestEntrySize(t *testing.T) {
	for _, e := range payloads()[2].(*Answer).Entries {
		with := (&Answer{Entries: []Entry{e}}).Append(nil)
		require.Equal(t, len(with)-len((&Answer{}).Append(nil)), e.Size())
	}
}

// FuzzDecode proves that what is accepted is read as it was meant: encoding it
// again gives the same payload, apart from what is skipped and the length of
// numbers.
func FuzzDecode(f *testing.F) {
	for _, p := range payloads() {
		f.Add(p.Append(nil))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := Decode(payload)
		if err != nil {
			require.Nil(t, p)
			return
		}
		once := p.Append(nil)
		require.LessOrEqual(t, len(once), len(payload))
		again, err := Decode(once)
		require.NoError(t, err)
		require.True(t, bytes.Equal(once, again.Append(nil)))
	})
}
