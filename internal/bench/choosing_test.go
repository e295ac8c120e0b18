package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestSuiteChoosing(t *testing.T) {
	quickly := func(t *testing.T, only, who string) *report {
		var progress bytes.Buffer
		o := &options{rounds: 1, duration: 500 * time.Millisecond, quick: true, only: only, who: who}
		r, err := run(context.Background(), choosingSuite, o, &progress)
		if errors.Is(err, redistest.ErrUnavailable) {
			t.Skip(err)
		}
		require.NoError(t, err, "%s", &progress)
		return r
	}
	t.Run("says what each way costs", func(t *testing.T) {
		r := quickly(t, "no fault", "")
		requireFigures(t, r, "published", "flooded", "commands", "connections")
		requireMeasured(t, r, "in", "out")
		require.Len(t, r.cases, 1)
		for name, want := range map[string]float64{"redis": 2, "sharded": 0, "nats": 1, "groups": 0} {
			bus, ok := r.cases[0].median(name, "bus")
			require.True(t, ok)
			require.InDelta(t, want, bus, 0.2, name)
		}
	})
	t.Run("says what faults do", func(t *testing.T) {
		redistest.Long(t) // until NATS has a leader again
		who := []string{"groups", "nats"}
		r := quickly(t, "killed", strings.Join(who, "|"))
		for _, who := range who {
			for key, positive := range map[string]bool{"accepted": true, "outage": true, "silent": false} {
				v, ok := r.cases[0].median(who, key)
				require.True(t, ok)
				require.Equal(t, positive, v > 0, "%s: %s is %v", who, key, v)
			}
		}
	})
}

func TestMarkdown(t *testing.T) {
	s, o := outcomeOf([]float64{10}, []float64{40}, target{})
	other := &outcome{contest: &contest{name: "other", contestants: []contestant{{name: "fanout"}}}, all: map[string]map[string][]float64{
		"fanout": {"none": {3}},
	}}
	var out bytes.Buffer
	showMarkdown(&out, &report{suite: s, cases: []*outcome{o, other}})
	require.Equal(t, `
| |  | ns/op |
|---|---|---:|
| case | fanout | 10 |
|  | raw | 40 |

| |  | nothing |
|---|---|---:|
| other | fanout | 3 |
`, out.String())
}
