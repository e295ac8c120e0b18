package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	beNATS()
	os.Exit(m.Run())
}

// outcomeOf has figures of two contestants in three rounds.
func outcomeOf(ours, theirs []float64, t target) (*suite, *outcome) {
	s := &suite{name: "s", about: "test", metrics: []metric{{key: "ns", title: "ns/op"}, {key: "none", title: "nothing"}}}
	c := &contest{name: "case", measure: "raw", contestants: []contestant{{name: "fanout"}, {name: "raw"}}, targets: []target{t}}
	return s, &outcome{contest: c, all: map[string]map[string][]float64{
		"fanout": {"ns": ours}, "raw": {"ns": theirs},
	}}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	// The third round was disturbed for both.
	_, o := outcomeOf([]float64{10, 12, 90}, []float64{20, 24, 180}, target{})
	ratio, ok := o.ratio("fanout", "raw", "ns")
	require.True(t, ok)
	require.Equal(t, 0.5, ratio)
	median, ok := o.median("fanout", "ns")
	require.True(t, ok)
	require.Equal(t, 12.0, median)
	_, ok = o.ratio("fanout", "raw", "none")
	require.False(t, ok)
}

func TestTargetsAreMetOrNot(t *testing.T) {
	for _, test := range []struct {
		t    target
		want string
	}{
		{target{of: "fanout", key: "ns", atMost: 15}, "met"},
		{target{of: "fanout", key: "ns", atMost: 9}, "NOT MET"},
		{target{of: "fanout", key: "ns", to: "raw", atMost: 0.5}, "met"},
		{target{of: "raw", key: "ns", to: "fanout", atLeast: 3}, "NOT MET"},
		{target{of: "fanout", key: "none", atMost: 9}, "not measured"},
	} {
		s, o := outcomeOf([]float64{10, 10}, []float64{20, 20}, test.t)
		require.Regexp(t, "^"+test.want+" ", test.t.verdict(s, o))
	}
}

func TestTheReportShowsAllThatWasMeasured(t *testing.T) {
	s, o := outcomeOf([]float64{10}, []float64{40}, target{of: "fanout", key: "ns", atMost: 15})
	r := &report{suite: s, cases: []*outcome{o}}
	var out bytes.Buffer
	show(&out, r)
	require.Contains(t, out.String(), "10 (×0.25)")
	require.NotContains(t, out.String(), "nothing", "what nobody has measured is no column")
	picture := svg(r)
	require.Contains(t, picture, "fanout")
	for d := xml.NewDecoder(bytes.NewReader([]byte(picture))); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
}

func TestWrongUseSaysWhatIsRight(t *testing.T) {
	for _, args := range [][]string{{}, {"nonsense"}, {"-rounds", "0", "local"}, {"-rounds"}} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 2, mainCode(context.Background(), args, &stdout, &stderr), args)
		require.Contains(t, stderr.String(), "bench: ")
	}
}
