package redispubsub

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

// reply makes the reply of a function, as the client's ToAny would.
func reply(values ...any) []any { return values }

var keepMany = adapter.Query{Keep: adapter.Retention{Messages: 1000}}

func TestParsePage(t *testing.T) {
	page, err := parsePage(reply("20", int64(9), "10:4:1,15:6:0,", int64(1),
		"10-3", "1500 2", "ab", "20-7", "3 4", "cdef"), keepMany)
	require.NoError(t, err)
	require.Equal(t, adapter.Position{Epoch: 20, Offset: 9}, page.Head)
	require.Equal(t, []adapter.PastEpoch{{Epoch: 10, Last: 4, Whole: true}, {Epoch: 15, Last: 6}}, page.Before)
	require.EqualValues(t, 2, page.First)
	require.True(t, page.More)
	require.Len(t, page.Frames, 2)

	for name, values := range map[string][]any{
		"no offset":                    {"20"},
		"half an entry":                {"20", int64(9), "", int64(0), "20-9"},
		"epoch 0":                      {"0", int64(9), "", int64(0)},
		"an epoch beyond 2^44":         {"17592186044417", int64(9), "", int64(0)},
		"a negative epoch":             {int64(-1), int64(9), "", int64(0)},
		"a negative offset":            {"20", int64(-9), "", int64(0)},
		"an offset beyond 2^53":        {"20", "9007199254740993", "", int64(0)},
		"an offset beyond 2^64":        {"20", "18446744073709551617", "", int64(0)},
		"an array for a number":        {"20", []any{"9"}, "", int64(0)},
		"more than More":               {"20", int64(9), "", int64(2)},
		"a past epoch of two":          {"20", int64(9), "10:4,", int64(0)},
		"a past epoch of the present":  {"20", int64(9), "20:4:1,", int64(0)},
		"past epochs that go back":     {"20", int64(9), "10:4:1,9:5:1,", int64(0)},
		"past offsets that go back":    {"20", int64(9), "10:4:1,11:3:1,", int64(0)},
		"a past beyond the head":       {"20", int64(9), "10:10:1,", int64(0)},
		"a past that is a number":      {"20", int64(9), "10:-1:1,", int64(0)},
		"an entry of no messages":      {"20", int64(9), "", int64(0), "20-9", "1 0", ""},
		"an entry of many messages":    {"20", int64(9), "", int64(0), "20-9", "1 10", ""},
		"an entry of half a message":   {"20", int64(9), "", int64(0), "20-9", "1 1.5", ""},
		"an entry before its time":     {"20", int64(9), "", int64(0), "20-9", "-1 1", ""},
		"an entry without a time":      {"20", int64(9), "", int64(0), "20-9", "1", ""},
		"an entry without a position":  {"20", int64(9), "", int64(0), "20", "1 1", ""},
		"an entry beyond the head":     {"20", int64(9), "", int64(0), "20-10", "1 1", ""},
		"an entry of a later epoch":    {"20", int64(9), "", int64(0), "21-9", "1 1", ""},
		"an old entry beyond the head": {"20", int64(9), "", int64(0), "10-10", "1 1", ""},
		"entries that overlap":         {"20", int64(9), "", int64(0), "20-5", "1 1", "", "20-6", "1 2", ""},
		"entries that go back":         {"20", int64(9), "", int64(0), "20-5", "1 1", "", "19-6", "1 1", ""},
	} {
		_, err := parsePage(reply(values...), keepMany)
		require.Error(t, err, name)
	}

	page, err = parsePage(reply("20", int64(9), "", int64(0), "20-5", "1 1", "", "20-8", "1 1", ""), keepMany)
	require.NoError(t, err)
	require.Len(t, page.Frames, 1, "what is missing is between two pages")
	require.True(t, page.More)
}

// Whatever the keys of a history contain, the result is an error or a page that
// is consistent.
func FuzzParsePage(f *testing.F) {
	f.Add("20", int64(9), "10:4:1,", int64(0), "20-8", "1 1", "20-9", "2 1", 1000)
	f.Add("17592186044416", int64(math.MaxInt64), "1:18446744073709551615:1,", int64(1), "1-18446744073709551615", "1 1", "-", "9223372036854775808 1", -1)
	f.Fuzz(func(t *testing.T, epoch string, offset int64, chain string, more int64, id1, meta1, id2, meta2 string, keep int) {
		for _, head := range []any{offset, strconv.FormatUint(uint64(offset), 10)} {
			q := adapter.Query{Keep: adapter.Retention{Messages: keep}}
			page, err := parsePage(reply(epoch, head, chain, more, id1, meta1, "frame", id2, meta2, "frame"), q)
			if err != nil {
				continue
			}
			require.LessOrEqual(t, page.Head.Epoch, uint64(maxEpoch))
			require.LessOrEqual(t, page.Head.Offset, uint64(maxOffset))
			require.LessOrEqual(t, page.First, page.Head.Offset+1)
			last := adapter.Position{}
			for _, past := range page.Before {
				require.Less(t, last.Epoch, past.Epoch)
				require.LessOrEqual(t, last.Offset, past.Last)
				last = adapter.Position{Epoch: past.Epoch, Offset: past.Last}
			}
			require.LessOrEqual(t, last.Offset, page.Head.Offset)
			last = adapter.Position{}
			for _, frame := range page.Frames {
				require.True(t, last.Before(frame.At) && last.Offset < frame.At.Offset)
				require.False(t, page.Head.Before(frame.At))
				require.GreaterOrEqual(t, frame.Age, time.Duration(0))
				last = frame.At
			}
		}
	})
}

func FuzzParseAppended(f *testing.F) {
	f.Add("20", int64(9), int64(-1))
	f.Fuzz(func(t *testing.T, epoch string, offset, n int64) {
		at, receivers, err := parseAppended(reply(epoch, offset, n))
		if err == nil {
			require.True(t, at.Offset > 0 && at.Offset <= maxOffset && at.Epoch > 0 && at.Epoch <= maxEpoch && receivers >= -1)
		}
	})
}
