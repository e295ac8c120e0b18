package adaptertest

import (
	"context"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A history is written as the result of each Publish, by number: "ok", "?" (it
// may have been delivered) or "unsent"; and as what the other node received:
// the numbers, and i and r for Interrupted and Restored. Between these, p2 is
// where Publish of 2 was called, if that was before the frame ahead of it came.
func TestHonestyIsJudgedByWhatWasHeard(t *testing.T) {
	for _, c := range []struct {
		name    string
		results string
		heard   string
		says    string // part of the failure; "": there is none
	}{
		{"all is heard", "ok ok ok", "0 1 2", ""},
		{"a loss that was told", "ok ok ok", "0 i r 2", ""},
		{"a loss that was not", "ok ok ok", "0 2 i r", `missed "1 of node 0"`},
		{"a loss of the last", "ok ok", "i r 0", `missed "1 of node 0"`},
		{"a loss after Restored", "ok ok ok ok", "0 i r 1 3", `missed "2 of node 0"`},
		{"a loss before Restored, after which the one before it comes", "ok ok ok", "i p1 r 0 2", ""},
		{"a loss before Interrupted, likewise", "ok ok ok ok", "0 p2 i r 1 3", ""},
		{"a loss after Restored, likewise", "ok ok ok", "i r p1 0 2", `missed "1 of node 0"`},
		{"a failure need not be told", "ok ? ok", "0 2", ""},
		{"a failure may arrive", "ok ? ok", "0 1 2", ""},
		{"a failure may arrive late, and a loss before that was told", "ok ? ok ok", "0 i r 1 3", ""},
		{"a failure may arrive after later ones", "ok ? ok ok ok", "0 i r 3 1 4", ""},
		{"a failure that arrives late excuses no loss", "ok ? ok ok ok", "0 2 1 4", `missed "3 of node 0"`},
		{"nor one that is told after later ones", "ok ok ? ok", "0 3 i r 2", `missed "1 of node 0"`},
		{"what was unsent arrives", "ok unsent ok", "0 1 2", "its Publish returned"},
		{"twice", "ok ok", "0 1 1", "2 times"},
		{"out of order", "ok ok ok ok", "0 3 1", `received "3 of node 0" before`},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := &node{index: 0}, &node{index: 1, heard: newRecorder()}
			s := &numbered{from: from, channel: "x"}
			s.to = []*node{to}
			for _, word := range strings.Fields(c.results) {
				s.began = append(s.began, []int{math.MaxInt})
				s.results = append(s.results, map[string]error{"?": context.DeadlineExceeded, "unsent": adapter.ErrUnsent}[word])
			}
			for _, word := range strings.Fields(c.heard) {
				frame, published := strings.CutPrefix(word, "p")
				switch {
				case word == "i":
					to.heard.Interrupted("x")
				case word == "r":
					to.heard.Restored("x")
				case published:
					i, err := strconv.Atoi(frame)
					require.NoError(t, err)
					s.began[i][0] = to.heard.calls("x")
				default:
					to.heard.Receive("x", []byte(word+" of node 0"))
				}
			}
			said := ""
			func() {
				defer func() {
					if f, ok := recover().(failure); ok {
						said = f.err.Error()
					}
				}()
				new(env).compare(s, 0, true)
			}()
			if c.says == "" {
				assert.Empty(t, said)
			} else {
				assert.Contains(t, said, c.says)
			}
		})
	}
}
