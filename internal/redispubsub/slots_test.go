package redispubsub

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// fromJSON returns the reply that a text in JSON stands for, as the client's
// ToAny would.
func fromJSON(text string) any {
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return errors.New(text)
	}
	return asReply(v)
}

func asReply(v any) any {
	switch v := v.(type) {
	case float64:
		if v != math.Trunc(v) || math.Abs(v) > 1<<53 {
			return v
		}
		return int64(v)
	case []any:
		for i := range v {
			v[i] = asReply(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = asReply(v[k])
		}
	}
	return v
}

func TestParseSlots(t *testing.T) {
	const from = "10.0.0.9:6379"
	for _, test := range []struct {
		name, reply string
		at          map[uint16]string // nil: an error
	}{
		{
			"three primaries with replicas", `[
			[0, 5460, ["10.0.0.1", 6379, "id", []], ["10.0.0.4", 6379, "id"]],
			[5461, 10922, ["10.0.0.2", 6379, "id", ["hostname", "b"]]],
			[10923, 16383, ["10.0.0.3", 6380, "id"]]]`,
			map[uint16]string{0: "10.0.0.1:6379", 5460: "10.0.0.1:6379", 5461: "10.0.0.2:6379", 16383: "10.0.0.3:6380"},
		},
		{
			"one owner of several ranges", `[[0, 1, ["a", 1]], [5, 5, ["b", 1]], [7, 8, ["a", 1]]]`,
			map[uint16]string{0: "a:1", 1: "a:1", 2: "", 5: "b:1", 6: "", 7: "a:1", 9: ""},
		},
		{"IPv6", `[[0, 1, ["::1", 6379]]]`, map[uint16]string{0: "[::1]:6379"}},
		{"a node that does not know its host", `[[0, 1, ["", 7000]]]`, map[uint16]string{0: "10.0.0.9:7000"}},
		{"a node without a preferred endpoint", `[[0, 1, [null, 7000]]]`, map[uint16]string{0: "10.0.0.9:7000"}},
		{"an owner whose address is unknown", `[[0, 1, ["?", 7000]], [2, 3, ["a", 1]]]`, map[uint16]string{0: "", 2: "a:1"}},
		{"numbers as strings", `[["0", "1", ["a", "1"]]]`, map[uint16]string{0: "a:1"}},
		{"no rows", `[]`, map[uint16]string{0: "", 16383: ""}},
		{"overlapping rows", `[[0, 5, ["a", 1]], [3, 4, ["b", 1]]]`, map[uint16]string{2: "a:1", 3: "b:1", 5: "a:1"}},

		{"nothing", `null`, nil},
		{"an error", `oops`, nil},
		{"a string", `"OK"`, nil},
		{"a row that is none", `[7]`, nil},
		{"a row without nodes", `[[0, 5]]`, nil},
		{"a primary that is none", `[[0, 5, "a"]]`, nil},
		{"a primary without a port", `[[0, 5, ["a"]]]`, nil},
		{"a port that is none", `[[0, 5, ["a", "x"]]]`, nil},
		{"a slot that is none", `[["x", 5, ["a", 1]]]`, nil},
		{"a slot that is null", `[[0, null, ["a", 1]]]`, nil},
		{"a negative slot", `[[-1, 5, ["a", 1]]]`, nil},
		{"a slot that is too large", `[[0, 16384, ["a", 1]]]`, nil},
		{"a range that ends before it begins", `[[5, 4, ["a", 1]]]`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			tab, err := parseSlots(from, fromJSON(test.reply))
			if test.at == nil {
				require.ErrorContains(t, err, from)
				return
			}
			require.NoError(t, err)
			for slot, want := range test.at {
				require.Equal(t, want, tab.at(slot), slot)
			}
			require.Len(t, unique(tab.addrs), len(tab.addrs))
		})
	}
}

func unique(list []string) map[string]bool {
	m := make(map[string]bool)
	for _, s := range list {
		m[s] = true
	}
	return m
}

func FuzzParseSlots(f *testing.F) {
	f.Add("10.0.0.9:6379", `[[0, 5460, ["10.0.0.1", 6379, "id", []], ["10.0.0.4", 6379]], [5461, "16383", [null, 1]]]`)
	f.Add("", `[[0, 16383, ["", 6379]]]`)
	f.Add("x", `[[0, 1, ["?", 1]], [1e300, 0.5, {}]]`)
	f.Fuzz(func(t *testing.T, from, text string) {
		tab, err := parseSlots(from, fromJSON(text))
		if err != nil {
			require.Nil(t, tab)
			return
		}
		require.Len(t, unique(tab.addrs), len(tab.addrs))
		for slot := range tab.made {
			if n := int(tab.made[slot]); n >= len(tab.addrs) {
				t.Fatalf("slot %d belongs to address %d of %d", slot, n, len(tab.addrs))
			}
		}
		for _, addr := range tab.addrs[1:] {
			require.NotEmpty(t, addr)
		}
	})
}
